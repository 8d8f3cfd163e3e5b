"""Exact area resampling: every output pixel is the mean of the input area it covers, fractions included.

Works on pieces: the sums of several blocks of one image add up to the sums of the whole, so an image far
larger than memory is shrunk block by block without seams. Sums are of darkness (255 - value), so that white
blocks, most of a slide, need no work at all.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Box, Size


class AreaSum:
    """Shrinks (or enlarges) an image of `source` size to `target` size from blocks given in any order.

    shrink   the blocks come shrunk by this already: their pixels span `shrink` of the source, the last ones less
    """

    def __init__(self, source: Size, target: Size, shrink: int = 1) -> None:
        self.source, self.target = source, target
        self.scale_x = source.width / shrink / target.width
        self.scale_y = source.height / shrink / target.height
        self._dark = np.zeros((target.height, target.width, 3), np.float32)

    def add(self, block: NDArray[np.uint8], box: Box) -> None:
        """Add the pixels (box.height, box.width, 3) that lie at `box` of the source image, shrunk as it comes."""
        if block.min(initial=255) == 255:
            return
        row, sums = _row_sums(~block, box.y, self.scale_y, self.target.height)
        column, sums = _column_sums(sums, box.x, self.scale_x, self.target.width)
        self._dark[row : row + sums.shape[0], column : column + sums.shape[1]] += sums

    def image(self) -> NDArray[np.uint8]:
        """The resampled image (h, w, 3), once every block has been added."""
        mean = self._dark / np.float32(self.scale_x * self.scale_y)
        return ~np.clip(np.rint(mean, out=mean), 0, 255, out=mean).astype(np.uint8)


def area_resize(pixels: NDArray[np.uint8], target: Size) -> NDArray[np.uint8]:
    """Resample a whole image (h, w, 3) to `target` by exact area weighting."""
    height, width = pixels.shape[:2]
    total = AreaSum(Size(width, height), target)
    total.add(pixels, Box(0, 0, width, height))
    return total.image()


def _outputs(start: int, length: int, scale: float, count: int) -> range:
    """Output pixels that the input pixels start .. start + length touch."""
    return range(math.floor(start / scale), min(count, math.ceil((start + length) / scale)))


def _row_sums(block: NDArray[np.uint8], top: int, scale: float, count: int) -> tuple[int, NDArray[np.float32]]:
    """Sum rows of the block into output rows; returns the first output row and (rows, w, 3) sums."""
    rows = _outputs(top, block.shape[0], scale, count)
    sums = np.empty((len(rows), *block.shape[1:]), np.float32)
    for index, row in enumerate(rows):
        low = max(row * scale - top, 0.0)
        high = min((row + 1) * scale - top, float(block.shape[0]))
        first, last = math.floor(low), max(math.ceil(high) - 1, math.floor(low))
        if first >= block.shape[0]:  # an output row that only floating point lets touch this block
            sums[index] = 0
            continue
        np.multiply(block[first], np.float32(min(high, first + 1) - low), out=sums[index])
        if last > first:
            sums[index] += block[first + 1 : last].sum(axis=0, dtype=np.uint32)
            sums[index] += block[last] * np.float32(high - last)
    return rows.start, sums


def _column_sums(sums: NDArray[np.float32], left: int, scale: float, count: int) -> tuple[int, NDArray[np.float32]]:
    """Sum columns of (rows, w, 3) into output columns by differences of the running total."""
    width = sums.shape[1]
    columns = _outputs(left, width, scale, count)
    total = np.zeros((sums.shape[0], width + 1, sums.shape[2]), np.float64)
    np.cumsum(sums, axis=1, dtype=np.float64, out=total[:, 1:])
    edges = np.clip(np.arange(columns.start, columns.stop + 1) * scale - left, 0, width)
    whole = np.minimum(edges.astype(np.int64), width - 1)
    part = (edges - whole)[None, :, None]
    running = total[:, whole] + part * sums[:, whole]
    return columns.start, np.diff(running, axis=1).astype(np.float32)
