"""Patches of successive slides from a reader process, which is restarted if a slide crashes it.

While the device works on one block, the process reads the next ones, also those of the next slide. If it dies, the
slides it had open are read once more, each in a process of its own. Only the slide that crashes that process too is
given up.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.remote.traffic import Traffic
from wsi_pipeline.stages.streaming.reader_process import Message, Reading, SlideJob, read_slides, view
from wsi_pipeline.system.isolate import Crash
from wsi_pipeline.system.processes import process_context, start_server

logger = logging.getLogger(__name__)

SLOTS = 4
"""Blocks in shared memory: one in use, the others read ahead."""


def warm_up() -> None:
    """Start the server of reader processes and its imports, while this process loads its network."""
    start_server([read_slides.__module__])


class PixelFeed:
    """Blocks of pixels of `jobs`, in order. Use as a context manager, from one thread.

    read   slide id -> what was read of a slide at an address
    """

    def __init__(self, jobs: Sequence[SlideJob], reading: Reading) -> None:
        self._jobs = [job for job in jobs if job.start < job.rows and not reading.by_device(job)]
        self._reading = reading
        self._slots: list[Any] = []
        self._reader: _Reader | None = None
        self._suspects: set[str] = set()
        self.read: dict[str, Traffic] = {}

    def __enter__(self) -> PixelFeed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def blocks(self, job: SlideJob) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Iterate over (first row, uint8 (B, P, P, 3)) of one slide, in order, from `job.start` to its last row.

        A block is valid until the next one is requested. Request slides in the order of the jobs: any other order
        costs a new process. Raises the error of a slide that cannot be read; SlideError if it crashes the
        process.
        """
        row = job.start
        while row < job.rows:
            reader = self._reader_at(replace(job, start=row))
            try:
                for first, block in reader.blocks():
                    self.read[job.record.slide_id] = reader.read[job.record.slide_id]
                    yield first, block
                    row = first + len(block)
            except ReaderDiedError as died:
                self._stop()
                if len(reader.jobs) == 1:
                    raise _given_up(job, died.crash) from None
                self._suspects |= {job.record.slide_id, *reader.opened}
                names = ", ".join(sorted({job.record.slide_id, *reader.opened}))
                logger.warning("%s while reading; once more, one by one: %s", died.crash.reason, names)

    def _reader_at(self, job: SlideJob) -> _Reader:
        """A reader process whose next rows are those of `job`: the current one if it fits, else a new one."""
        reader = self._reader
        if reader is None or reader.next_up != (job.record.slide_id, job.start):
            self._stop()
            if not self._slots:
                size = self._reading.rows * self._reading.patch_bytes
                self._slots = [process_context([]).RawArray(ctypes.c_uint8, size) for _ in range(SLOTS)]
            reader = self._reader = _Reader([job, *self._after(job)], self._slots, self._reading)
        return reader

    def _after(self, job: SlideJob) -> Iterator[SlideJob]:
        """Jobs that may share a process with `job`: the next ones, up to a slide suspected of crashing the process."""
        ids = [other.record.slide_id for other in self._jobs]
        following = self._jobs[ids.index(job.record.slide_id) + 1 :] if job.record.slide_id in ids else []
        names = [job.record.slide_id, *(other.record.slide_id for other in following)]
        for name, other in zip(names, following, strict=False):
            if name in self._suspects or other.record.slide_id in self._suspects:
                return
            yield other

    def _stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None


class ReaderDiedError(Exception):
    """The reader process ended before it had read everything."""

    def __init__(self, crash: Crash) -> None:
        super().__init__(crash.reason)
        self.crash = crash


class _Reader:
    """One reader process and its progress.

    opened   ids of slides it has opened and not finished
    read     id -> what it has read of a slide at an address
    """

    def __init__(self, jobs: Sequence[SlideJob], slots: Sequence[Any], reading: Reading) -> None:
        self.jobs, self.opened, self.read = list(jobs), set[str](), dict[str, Traffic]()
        self._slots, self._position, self._row = slots, 0, jobs[0].start
        context = process_context([read_slides.__module__])
        self._messages, sender = context.Pipe(duplex=False)
        free, self._free = context.Pipe(duplex=False)
        arguments = (sender, free, slots, self.jobs, reading)
        self._process = context.Process(target=read_slides, args=arguments, daemon=True)
        self._process.start()
        sender.close()
        free.close()
        for number in range(len(slots)):
            self._give_back(number)

    @property
    def next_up(self) -> tuple[str, int] | None:
        """Id and first row of the next slide; None after the last."""
        if self._position == len(self.jobs):
            return None
        return self.jobs[self._position].record.slide_id, self._row

    def blocks(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The blocks of the next slide. Raises its error, or ReaderDiedError."""
        job = self.jobs[self._position]
        while self._row < job.rows:
            message = self._receive()
            if message.kind == "open":
                self.opened.add(self.jobs[message.number].record.slide_id)
            elif message.error is not None:
                self._advance()
                raise message.error
            else:
                self._row = message.first + message.shape[0]
                self.read[job.record.slide_id] = message.read or Traffic()
                yield message.first, view(self._slots[message.slot], message.shape)
                self._give_back(message.slot)
        self._advance()

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()
        self._messages.close()
        self._free.close()

    def _advance(self) -> None:
        self.opened.discard(self.jobs[self._position].record.slide_id)
        self._position += 1
        if self._position < len(self.jobs):
            self._row = self.jobs[self._position].start

    def _receive(self) -> Message:
        try:
            message = self._messages.recv()
        except EOFError:
            self._process.join()
            raise ReaderDiedError(Crash(self._process.exitcode)) from None
        assert isinstance(message, Message)
        return message

    def _give_back(self, slot: int) -> None:
        with suppress(BrokenPipeError):  # its death is noticed when its messages end
            self._free.send(slot)


def _given_up(job: SlideJob, crash: Crash) -> SlideError:
    reason = crash.reason.replace("worker process", "reading process")
    return SlideError(
        f"its patches cannot be read: {reason}",
        slide=job.record.slide_id,
        todo="The file may be damaged in a way its codec does not survive",
    )
