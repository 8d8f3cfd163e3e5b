"""PatchReader: the pixels of a slide's patches, as uint8 batches in store order.

Reads ahead in threads (decoders release the GIL) while the caller computes. If the slide offers its stored tiles,
each is decoded once, shrunk as far as the geometry allows. If the patch store keeps pixels, they are read
from it, and the slide is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import numpy as np

from wsi_pipeline.reading.patch_sources import Batch, PatchSource, SlidePatches, StoredPatches, in_order
from wsi_pipeline.reading.pixels import decode_jpeg, encode_jpeg, shrink_to
from wsi_pipeline.system.prefetch import prefetch

__all__ = [
    "Batch", "PatchReader", "PatchSource", "SlidePatches", "StoredPatches", "decode_jpeg", "encode_jpeg", "shrink_to",
]  # fmt: skip

AHEAD = 2
"""Batches held at most beyond the one in use."""

_PIECES_PER_THREAD = 2
"""Pieces of a batch per thread: with one each, a batch waits for its slowest piece."""


class PatchReader:
    """Iterate over (first row, batch uint8 (B, P, P, 3)); every row once, in order, the last batch shorter.

    threads   readers that work ahead; at most two batches are held beyond the one in use
    start     row to begin with
    """

    def __init__(self, source: PatchSource, batch: int, threads: int = 2, start: int = 0) -> None:
        self.source, self.batch, self.threads, self.start = source, max(1, batch), max(1, threads), start

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        if self.start >= len(self.source):
            return
        side, fill = in_order(self.source, self.start)

        def read(piece: _Piece) -> _Piece:
            fill(piece.first + piece.start, piece.batch[piece.start : piece.stop])
            return piece

        ahead = AHEAD * -(-self.batch // self._step(self.batch))
        with (
            ThreadPoolExecutor(self.threads, thread_name_prefix="patches") as pool,
            closing(prefetch(pool, read, self._pieces(side), ahead)) as pieces,
        ):
            for piece in pieces:
                if piece.stop == len(piece.batch):
                    yield piece.first, piece.batch

    def _pieces(self, side: int) -> Iterator[_Piece]:
        """Batches to fill, in pieces of neighbouring rows, which share tiles."""
        for first in range(self.start, len(self.source), self.batch):
            batch = np.empty((min(self.batch, len(self.source) - first), side, side, 3), np.uint8)
            step = self._step(len(batch))
            for start in range(0, len(batch), step):
                yield _Piece(first, batch, start, min(start + step, len(batch)))

    def _step(self, rows: int) -> int:
        """Number of rows in one piece of a batch of `rows`."""
        return -(-rows // (self.threads * _PIECES_PER_THREAD))


class _Piece(NamedTuple):
    """Fill rows start to stop of a batch that begins at row `first` of the store."""

    first: int
    batch: Batch
    start: int
    stop: int
