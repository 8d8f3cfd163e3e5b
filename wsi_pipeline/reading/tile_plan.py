"""Which stored tiles each patch of a slide consists of, and assembling the patch from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.reading.pixels import shrink_to
from wsi_pipeline.slides.slide import Level, StoredTiles
from wsi_pipeline.tiling.resolve import PatchGeometry

Pixels = NDArray[np.uint8]
GetTile = Callable[[int, int, int, Pixels | None], Pixels]
"""(column, row, shrink, buffer to decode into or None) -> the decoded tile."""


@dataclass(frozen=True, eq=False)
class TilePlan:
    """The patches of one slide in pixels of the level they are read from.

    tiles           of that level
    x, y            int64 (N,): top-left corners, the pixel nearest to the level-0 position
    shrinks         int64 (N,): how far the tiles of each patch are shrunk while they are decoded
    side, patch_px  side of a patch at the level and as delivered
    """

    tiles: StoredTiles
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    shrinks: NDArray[np.int64]
    side: int
    patch_px: int

    def uses(self, start: int) -> dict[int, NDArray[np.int32]]:
        """shrink -> int32 (rows, columns): how many of the patches from row `start` on need each tile."""
        counts = {}
        for shrink in np.unique(self.shrinks[start:]).tolist():
            of_this = np.flatnonzero(self.shrinks[start:] == shrink) + start
            counts[shrink] = self._count(self.x[of_this], self.y[of_this])
        return counts

    def order(self, start: int) -> NDArray[np.int64]:
        """(column, row) int64 (N, 2) of the tiles of the patches from row `start` on, in the order of first use."""
        tiles, x, y = self.tiles, self.x[start:], self.y[start:]
        first_column, last_column = _spans(x, self.side, tiles.tile.width, tiles.columns)
        first_row, last_row = _spans(y, self.side, tiles.tile.height, tiles.rows)
        down = np.arange(int((last_row - first_row).max(initial=-1)) + 1)
        along = np.arange(int((last_column - first_column).max(initial=-1)) + 1)
        rows = first_row[:, None, None] + down[None, :, None]
        columns = first_column[:, None, None] + along[None, None, :]
        there = (rows <= last_row[:, None, None]) & (columns <= last_column[:, None, None])
        used = (rows * tiles.columns + columns)[there]
        numbers, first = np.unique(used, return_index=True)
        numbers = numbers[np.argsort(first)]
        return np.stack([numbers % tiles.columns, numbers // tiles.columns], axis=1)

    def assemble(self, row: int, get: GetTile, out: Pixels) -> None:
        """Fill `out` (P, P, 3) with patch `row`: white beyond the level, shrunk by area means."""
        side = self.side // int(self.shrinks[row])
        region = out if side == self.patch_px else np.empty((side, side, 3), np.uint8)
        if not self.covered(row):
            region[...] = 255
        self._paste(row, get, region)
        if region is not out:
            out[...] = shrink_to(region, self.patch_px)

    def covered(self, row: int) -> bool:
        """True where patch `row` lies within the stored tiles."""
        x, y, tiles = int(self.x[row]), int(self.y[row]), self.tiles
        right, bottom = tiles.columns * tiles.tile.width, tiles.rows * tiles.tile.height
        return min(x, y) >= 0 and x + self.side <= right and y + self.side <= bottom

    def _paste(self, patch: int, get: GetTile, region: Pixels) -> None:
        """Copy the parts of tiles that make up a patch into `region`, which holds it at the tiles' shrunk scale."""
        shrink = int(self.shrinks[patch])
        width, height = self.tiles.tile.width // shrink, self.tiles.tile.height // shrink
        x, y, side = int(self.x[patch]) // shrink, int(self.y[patch]) // shrink, region.shape[0]
        for row in _span(y, side, height, self.tiles.rows):
            top, bottom = max(y, row * height), min(y + side, (row + 1) * height)
            for column in _span(x, side, width, self.tiles.columns):
                left, right = max(x, column * width), min(x + side, (column + 1) * width)
                same = (x, y, side, side) == (column * width, row * height, width, height)
                found = get(column, row, shrink, region if same else None)
                if np.may_share_memory(found, region):
                    continue
                region[top - y : bottom - y, left - x : right - x] = found[
                    top - row * height : bottom - row * height, left - column * width : right - column * width
                ]

    def _count(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int32]:
        tiles = self.tiles
        first_column, last_column = _spans(x, self.side, tiles.tile.width, tiles.columns)
        first_row, last_row = _spans(y, self.side, tiles.tile.height, tiles.rows)
        counts = np.zeros(tiles.rows * tiles.columns, np.int64)
        for down in range(int((last_row - first_row).max(initial=-1)) + 1):
            for along in range(int((last_column - first_column).max(initial=-1)) + 1):
                row, column = first_row + down, first_column + along
                there = (row <= last_row) & (column <= last_column)
                counts += np.bincount(row[there] * tiles.columns + column[there], minlength=len(counts))
        return counts.reshape(tiles.rows, tiles.columns).astype(np.int32)


def plan_patches(tiles: StoredTiles, level: Level, coords: NDArray[np.int64], geometry: PatchGeometry) -> TilePlan:
    """Place patches (coords int64 (N, 2), level-0 pixels) on the tiles of the level that `geometry` reads.

    If the patch is a whole-number shrink and its corner lies on the grid of shrunk pixels, its tiles are decoded at
    the coarsest scale that divides the shrink, otherwise at full size.
    """
    x, y = (np.floor(coords[:, axis] / level.downsample + 0.5).astype(np.int64) for axis in (0, 1))
    shrinks = np.ones(len(coords), np.int64)
    if geometry.level_px % geometry.patch_px == 0:
        whole = geometry.level_px // geometry.patch_px
        for scale in tiles.scales:
            if whole % scale == 0:
                shrinks[(x % scale == 0) & (y % scale == 0)] = scale
    return TilePlan(tiles, x, y, shrinks, geometry.level_px, geometry.patch_px)


def _span(start: int, length: int, tile: int, count: int) -> range:
    """Numbers of the tiles that the pixels start .. start + length touch."""
    return range(max(0, start // tile), min(count, (start + length - 1) // tile + 1))


def _spans(start: NDArray[np.int64], length: int, tile: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last tile that each range start .. start + length touches; last < first if there is none."""
    return np.maximum(start // tile, 0), np.minimum((start + length - 1) // tile, count - 1)
