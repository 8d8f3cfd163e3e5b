"""The reader process: reads patches of successive slides into memory shared with the computing process.

It imports no deep-learning framework. A crash, usually of a codec on a damaged tile, ends only this process.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.errors import SlideError, WsiPipelineError
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.reading.patch_reader import PatchSource
from wsi_pipeline.reading.read_ahead import read_ahead
from wsi_pipeline.remote.traffic import Traffic, traffic
from wsi_pipeline.store.schema import JPEG
from wsi_pipeline.store.tables.patch_table import read_patch_table


@dataclass(frozen=True)
class SlideJob:
    """Patches to read: rows `start` to `rows` of the patch store at `path`.

    pixels   the pixels in the store: none, jpeg or images
    """

    record: SlideRecord
    path: Path
    rows: int
    start: int = 0
    pixels: str = "none"


@dataclass(frozen=True)
class Message:
    """Message of the reader process: a slide has begun, a slot is filled with rows, or a slide cannot be read.

    number   index of the slide among the jobs
    read     what was read of it so far, if it lies at an address
    """

    kind: Literal["open", "rows", "failed"]
    number: int
    slot: int = 0
    first: int = 0
    shape: tuple[int, ...] = ()
    error: BaseException | None = None
    read: Traffic | None = None


def open_patches(job: SlideJob) -> PatchSource:
    """Open the patches of a slide. Raises SlideError or StoreError as `PatchFiles.open` does."""
    return PatchFiles.of(read_patch_table(job.path), job.path, job.record.path).open()


Opener = Callable[[SlideJob], PatchSource]

BLOCK_BYTES = 32 << 20
"""Most bytes of one block."""


@dataclass(frozen=True)
class Reading:
    """How patches are read.

    patch_px   largest patch side of all jobs, pixels
    block      maximum number of patches at a time
    threads    threads that read and decode
    open       opens the patches of a slide, in the reader process; picklable
    decode_on  device that decodes the store's JPEG patches itself; "" if none does
    """

    patch_px: int
    block: int = 16
    threads: int = 2
    open: Opener = open_patches
    decode_on: str = ""

    def by_device(self, job: SlideJob) -> bool:
        """Whether the device decodes the patches of a slide."""
        return bool(self.decode_on) and job.pixels == JPEG

    @property
    def patch_bytes(self) -> int:
        """Bytes of one patch, RGB."""
        return self.patch_px * self.patch_px * 3

    @property
    def rows(self) -> int:
        """Patches per block, as many as fit in BLOCK_BYTES."""
        return max(1, min(self.block, BLOCK_BYTES // self.patch_bytes))


def read_slides(
    sender: Connection, free: Connection, slots: Sequence[Any], jobs: Sequence[SlideJob], reading: Reading
) -> None:
    """Main function of the reader process: reads `jobs` in order, block by block, into free `slots`.

    sender   where Messages are sent
    free     delivers the numbers of slots that may be filled; when it is closed, the process ends
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    outbox = _Outbox(sender)
    openers = [partial(_announced, outbox, reading.open, number, job) for number, job in enumerate(jobs)]
    try:
        for found in read_ahead(openers, reading.rows, reading.threads, lambda number: jobs[number].start):
            if len(found) == 2:
                outbox.send(Message("failed", found[0], error=_portable(found[1])))
            else:
                number, first, batch = found
                slot = free.recv()
                view(slots[slot], batch.shape)[:] = batch
                outbox.send(Message("rows", number, slot, first, batch.shape, read=traffic(jobs[number].record.path)))
    except (EOFError, BrokenPipeError):
        return  # the parent has stopped listening


def view(slot: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The rows in a slot as uint8 of `shape`, without copying."""
    count = int(np.prod(shape))
    return np.frombuffer(slot, np.uint8, count).reshape(shape)


class _Outbox:
    """Sends messages from several threads."""

    def __init__(self, sender: Connection) -> None:
        self._sender, self._lock = sender, threading.Lock()

    def send(self, message: Message) -> None:
        with self._lock:
            self._sender.send(message)


def _announced(outbox: _Outbox, opener: Opener, number: int, job: SlideJob) -> PatchSource:
    outbox.send(Message("open", number))
    return opener(job)


def _portable(error: BaseException) -> BaseException:
    """An error that can be pickled: ours and the system's unchanged, others as text."""
    if isinstance(error, WsiPipelineError | OSError | MemoryError):
        return error
    trace = "".join(traceback.format_exception(error))
    return SlideError(f"unexpected {type(error).__name__} while reading: {error}", todo=f"Please report it:\n{trace}")
