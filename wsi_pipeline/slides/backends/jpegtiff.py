"""Tiled JPEG and JPEG 2000 TIFF, tile by tile: SVS, generic tiled TIFF, BigTIFF, OME-TIFF with its levels in SubIFDs.

Another backend opens the file first and reports levels, mpp and vendor. This one finds the TIFF directory of each
level and reads and decodes the compressed tiles directly, which is several times faster and lets
the patch reader decode each tile once and at reduced size. Levels that this reader cannot decode, or whose pixels
differ from the other backend's (`tile_check`), are left to the other backend.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.pixel_cache import PixelCache
from wsi_pipeline.slides.slide import Slide, level_box
from wsi_pipeline.slides.tiff.slide_image import SlideImage
from wsi_pipeline.slides.tiff.tiff_segments import joined
from wsi_pipeline.slides.tiles.tile_check import same_pixels
from wsi_pipeline.slides.tiles.tile_level import TiledLevel
from wsi_pipeline.slides.tiles.tile_pages import tiled_levels

Pixels = NDArray[np.uint8]

CACHE_BYTES = 64 << 20
"""Decoded tiles kept for `read_region`."""


class JpegTiffSlide(Slide):
    """A slide whose tiles are decoded here; `other` is the same `image` in the backend that describes it.

    Takes ownership of `other`, which reads the levels not decoded here and is closed with this slide. Raises
    SlideError, leaving `other` open, if no level can be decoded here.

    levels   those decoded here, compared already; None: found and compared now
    """

    def __init__(
        self, path: Path, other: Slide, image: SlideImage, levels: dict[int, TiledLevel] | None = None
    ) -> None:
        if levels is None:
            levels = same_pixels(tiled_levels(path, other, image), other, path.name)
        self._other, self._levels = other, levels
        if 0 not in self._levels:
            raise SlideError("its level 0 did not pass the comparison")
        self._cache = PixelCache(CACHE_BYTES)
        self._lock, self._closed = threading.Lock(), False
        self.info = replace(other.info, backend="jpegtiff")

    def tiles(self, level: int) -> TiledLevel | None:
        """The stored tiles of a level, or None if the other backend reads it."""
        return self._levels.get(level)

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> Pixels:
        if self._closed:
            raise SlideError("slide is closed")
        tiles = self._levels.get(level)
        if tiles is None:
            return self._other.read_region(x, y, level, width, height)
        box, decode = level_box(self.info.levels[level], x, y, width, height), tiles.decode
        inside = box.clipped(tiles.size)
        if tiles.remote and inside:
            tiles.expect(tiles_below(inside, tiles.tile), in_order=False)

        def tile(row: int, column: int) -> Pixels:
            return self._cache.get((level, row, column), partial(decode, column, row))

        return joined(box, inside, tiles.tile, tile)

    def close(self) -> None:
        """Release the file; it closes when the last read in another thread has finished."""
        with self._lock:
            self._closed = True
            for level in self._levels.values():
                level.close()
            self._levels = {}
            self._other.close()
        self._cache.clear()


def tiles_below(box: Box, tile: Size) -> NDArray[np.int64]:
    """(column, row) int64 (N, 2) of the tiles that a box touches, row by row."""
    rows = np.arange(box.y // tile.height, (box.bottom - 1) // tile.height + 1)
    columns = np.arange(box.x // tile.width, (box.right - 1) // tile.width + 1)
    return np.stack([np.tile(columns, len(rows)), np.repeat(rows, len(columns))], axis=1)
