"""PatchReader: the pixels of a slide's patches, as uint8 batches in store order.

Reads ahead in threads (decoders release the GIL) while the caller computes. Where the slide gives its stored tiles,
each of them is decoded once, shrunk as far as the geometry allows. Where the patch store keeps pixels they are read
from it, and the slide is not touched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from wsi_pipeline.reading.patch_sources import Batch, Fill, PatchSource, SlidePatches, StoredPatches, in_order
from wsi_pipeline.reading.pixels import decode_jpeg, encode_jpeg, shrink_to

__all__ = [
    "Batch", "PatchReader", "PatchSource", "SlidePatches", "StoredPatches", "decode_jpeg", "encode_jpeg", "shrink_to",
]  # fmt: skip

AHEAD = 2
"""Batches held at most beyond the one in use."""

_PIECES_PER_THREAD = 2
"""Each thread reads that many pieces of a batch: one would leave it waiting for the slowest."""


class PatchReader:
    """Iterate over (first row, batch uint8 (B, P, P, 3)); every row once, in order, the last batch shorter.

    threads   readers that work ahead; at most two batches are held beyond the one in use
    start     row to begin with
    """

    def __init__(self, source: PatchSource, batch: int, threads: int = 2, start: int = 0) -> None:
        self.source, self.batch, self.threads, self.start = source, max(1, batch), max(1, threads), start

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        starts = range(self.start, len(self.source), self.batch)
        if not starts:
            return
        side, fill = in_order(self.source, self.start)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="patches") as pool:
            pending: deque[tuple[int, Batch, list[Future[None]]]] = deque()
            try:
                for first in starts:
                    out = np.empty((min(self.batch, len(self.source) - first), side, side, 3), np.uint8)
                    pending.append((first, out, self._submit(pool, fill, first, out)))
                    if len(pending) > AHEAD:
                        yield _finished(*pending.popleft())
                while pending:
                    yield _finished(*pending.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, fill: Fill, first: int, out: Batch) -> list[Future[None]]:
        """Start filling one batch, in pieces of neighbouring rows, which share tiles."""
        step = -(-len(out) // (self.threads * _PIECES_PER_THREAD))
        return [pool.submit(fill, first + k, out[k : k + step]) for k in range(0, len(out), step)]


def _finished(first: int, out: Batch, pieces: list[Future[None]]) -> tuple[int, Batch]:
    for piece in pieces:
        piece.result()
    return first, out
