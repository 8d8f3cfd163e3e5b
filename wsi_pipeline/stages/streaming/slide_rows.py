"""A network's outputs for one slide, one row per patch: batched, saved to disk at intervals, finished once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.store.tables.partial import PartialRows, RowsKey, partial_path, read_partial

KEEP_SECONDS = 10.0
"""Longest time between two saves of a slide's unfinished rows."""

IN_FLIGHT = 2
"""Batches begun on a device before the first is waited for."""

OutputRows = NDArray[np.floating[Any]]
"""What a network gives for N patches, (N, D): features, or probabilities of classes."""
Submit = Callable[[Any], Callable[[], OutputRows]]
"""Begin to compute a batch of patches; what it returns waits for the rows (B, D)."""


Recolour = Callable[[Any], Any]
"""Changes the colours of a batch of patches, on the network's device."""


@dataclass(frozen=True)
class RowsPlan:
    """Plan of the rows to compute for a slide: rows as described by `key`, for the store at `path`.

    recolour   what is done to each batch before the network gets it; None: nothing
    """

    path: Path
    key: RowsKey
    recolour: Recolour | None = None


class SlideRows:
    """Computes the rows of one slide. Call `take` with blocks of patches in order, then `end` once.

    An interrupted slide resumes from the saved rows with the batch size it was started with, so that its rows equal
    those of an uninterrupted run bit for bit.

    start, done   number of rows available at the start, and now
    """

    def __init__(self, plan: RowsPlan, submit: Submit, writer: Executor) -> None:
        """`submit` is called by the thread that calls `take`; `writer` runs the writes to disk."""
        key, kept = _resume(plan)
        self.start, self.batch = len(kept), max(1, key.batch)
        self._plan, self._key, self._submit, self._writer = plan, key, submit, writer
        self._out = np.zeros((key.rows, key.dim), key.dtype)
        self._out[: self.start] = kept
        self.done = self._kept = self._next = self.start
        self._held: Any = None
        self._n_held = 0
        self._begun: deque[tuple[int, int, Callable[[], OutputRows]]] = deque()
        self._saved, self._saves = time.monotonic(), deque[Future[None]]()
        self._partial: PartialRows | None = None

    def take(self, first: int, block: Any) -> int:
        """Take patches uint8 (B, P, P, 3), numpy or torch, from row `first` on; returns how many rows were computed.

        Rows already computed are skipped. The block may be reused once this returns. Raises what `submit` does.
        """
        before = self.done
        block = block[max(0, self._next - first) :]
        while len(block):
            count = self._take_part(block)
            self._next += count
            block = block[count:]
        return self.done - before

    def end(self) -> OutputRows:
        """All rows (N, D), after the last patch was taken. Raises OSError if rows could not be saved."""
        if self._n_held:
            self._begin(self._next - self._n_held, self._held[: self._n_held])
            self._n_held = 0
        self._collect(0)
        for save in self._saves:
            save.result()
        return self._out

    def discard(self) -> None:
        """Remove the saved rows, once the slide's store has been written."""
        partial_path(self._plan.path).unlink(missing_ok=True)

    def _take_part(self, block: Any) -> int:
        """Start a batch with the first patches of `block`, or hold them until it is full; returns the patches used."""
        if self._n_held == 0 and len(block) >= self.batch:
            self._begin(self._next, block[: self.batch])
            return self.batch
        if self._held is None:
            self._held = _room_for(block, self.batch)
        count = min(self.batch - self._n_held, len(block))
        self._held[self._n_held : self._n_held + count] = block[:count]
        self._n_held += count
        if self._n_held == self.batch:
            self._begin(self._next + count - self.batch, self._held)
            self._n_held = 0
        return count

    def _begin(self, first: int, batch: Any) -> None:
        if self._plan.recolour is not None:
            batch = self._plan.recolour(batch)
        self._begun.append((first, len(batch), self._submit(batch)))
        self._collect(IN_FLIGHT - 1)

    def _collect(self, most: int) -> None:
        """Wait until at most `most` batches are in flight."""
        while len(self._begun) > most:
            first, count, wait = self._begun.popleft()
            with np.errstate(over="ignore"):  # an overflow to infinity is refused at the write, which names the row
                self._out[first : first + count] = wait()
            self.done = first + count
        if time.monotonic() - self._saved >= KEEP_SECONDS and self.done < self._key.rows:
            self._save()

    def _save(self) -> None:
        rows = self._out[self._kept : self.done].copy()
        self._saves.append(self._writer.submit(self._append, rows))
        self._kept, self._saved = self.done, time.monotonic()

    def _append(self, rows: OutputRows) -> None:
        if self._partial is None:
            self._partial = PartialRows(partial_path(self._plan.path), self._key, self._out[: self.start])
        self._partial.append(rows)


def _room_for(block: Any, count: int) -> Any:
    """Uninitialised memory for `count` patches, of the same type and on the same device as `block`."""
    shape = (count, *block.shape[1:])
    return np.empty(shape, np.uint8) if isinstance(block, np.ndarray) else block.new_empty(shape)


def kept_rows(plan: RowsPlan) -> int:
    """Number of saved rows that an unfinished slide can resume from."""
    return len(_resume(plan)[1])


def _resume(plan: RowsPlan) -> tuple[RowsKey, OutputRows]:
    """The key to resume with, and the number of saved rows."""
    wanted = plan.key
    found = read_partial(partial_path(plan.path))
    if found is not None:
        key, rows = found
        same = (key.digest, key.rows, key.dim, key.dtype) == (wanted.digest, wanted.rows, wanted.dim, wanted.dtype)
        # Whole batches only: a partial batch would be completed with other patches than before.
        whole = len(rows) - (len(rows) % key.batch if key.batch and len(rows) < key.rows else 0)
        if same and key.batch:
            return key, rows[:whole]
    return wanted, np.zeros((0, wanted.dim), wanted.dtype)
