"""The patches of a slide as JPEGs for a patch store: the scanner's own bytes if a patch is one of its tiles."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.reading.patch_sources import SlidePatches
from wsi_pipeline.reading.pixels import encode_jpeg
from wsi_pipeline.system.prefetch import prefetch

_PIECE = 16
"""Patches that one thread makes at a time."""


def read_jpegs(source: SlidePatches, quality: int, threads: int = 2) -> Iterator[list[bytes]]:
    """Lists of JPEGs that together hold one for each patch, in order; read ahead in threads.

    If a patch is exactly one stored JPEG tile, its bytes are copied (with shared tables and the statement
    of its colours inserted) after a test decode, so no loss is added. All other patches are encoded
    once, at `quality`, 4:4:4. Raises SlideError naming the patch if a tile does not decode.
    """
    jpegs = _Jpegs(source, quality)
    source.expect(0)
    with ThreadPoolExecutor(threads, thread_name_prefix="jpegs") as pool:
        yield from prefetch(pool, jpegs.piece, range(0, len(source), _PIECE), 2 * threads)


def stored_as_they_are(source: SlidePatches) -> NDArray[np.bool_]:
    """(N,): which patches are exactly one stored tile of the patch size, wholly inside the level."""
    plan, size = source.plan, source.slide.info.levels[source.geometry.level].size
    if plan is None or not plan.side == plan.patch_px == plan.tiles.tile.width == plan.tiles.tile.height:
        return np.zeros(len(source), np.bool_)
    on_grid = (plan.x % plan.side == 0) & (plan.y % plan.side == 0) & (plan.x >= 0) & (plan.y >= 0)
    return np.asarray(on_grid & (plan.x + plan.side <= size.width) & (plan.y + plan.side <= size.height))


class _Jpegs:
    """Makes the JPEGs of single rows; for several threads."""

    def __init__(self, source: SlidePatches, quality: int) -> None:
        self._source, self._quality = source, quality
        self._as_it_is = stored_as_they_are(source)
        self._place = np.cumsum(~self._as_it_is) - 1
        _, self._fill = replace(source, coords=source.coords[~self._as_it_is]).in_order(0)

    def piece(self, first: int) -> list[bytes]:
        """JPEGs of _PIECE rows from `first` on, fewer at the end."""
        rows = range(first, min(first + _PIECE, len(self._source)))
        return [self._stored(row) or self._encoded(row) for row in rows]

    def _stored(self, row: int) -> bytes | None:
        """The stored tile if the patch is exactly one JPEG tile that the file holds, else None."""
        plan = self._source.plan
        if plan is None or not self._as_it_is[row]:
            return None
        tiles, column, line = plan.tiles, int(plan.x[row]) // plan.side, int(plan.y[row]) // plan.side
        try:
            data = tiles.raw(column, line)
            if data is not None:
                tiles.decode(column, line, tiles.scales[-1])
        except SlideError as error:
            x, y = self._source.coords[row]
            raise SlideError(f"patch {row} at ({x}, {y}): {error.what}", todo=error.todo) from error
        return data

    def _encoded(self, row: int) -> bytes:
        patch = np.empty((1, self._source.side, self._source.side, 3), np.uint8)
        if self._as_it_is[row]:
            patch[0] = self._source.read(row)
        else:
            self._fill(int(self._place[row]), patch)
        return encode_jpeg(patch[0], self._quality)
