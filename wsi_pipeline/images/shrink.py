"""Exact area resampling: every output pixel is the mean of the input area it covers, fractions included.

Works on pieces: the sums of several blocks of one image add up to the sums of the whole, so an image far
larger than memory is shrunk block by block without seams. Sums are of darkness (255 - value), so that white
blocks, most of a slide, need no work at all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Box, Size


class AreaSum:
    """Shrinks (or enlarges) an image of `source` size to `target` size from blocks given in any order.

    shrink   factor by which the blocks are already shrunk: each pixel spans `shrink` source pixels, the last ones less
    """

    def __init__(self, source: Size, target: Size, shrink: int = 1) -> None:
        self.source, self.target = source, target
        self.scale_x = source.width / shrink / target.width
        self.scale_y = source.height / shrink / target.height
        self._dark = np.zeros((target.height, target.width, 3), np.float32)

    def add(self, block: NDArray[np.uint8], box: Box) -> None:
        """Add the pixels (box.height, box.width, 3) of `box` of the source image, already shrunk by `shrink`."""
        if block.min(initial=255) == 255:
            return
        row, sums = _line_sums(~block, box.y, self.scale_y, self.target.height)
        # Columns are summed as rows of the transposed array, many times faster than along its short last axes.
        turned = np.ascontiguousarray(sums.swapaxes(0, 1))
        column, sums = _line_sums(turned, box.x, self.scale_x, self.target.width)
        self._dark[row : row + sums.shape[1], column : column + sums.shape[0]] += sums.swapaxes(0, 1)

    def image(self) -> NDArray[np.uint8]:
        """The resampled image (h, w, 3), once every block has been added."""
        mean = self._dark / np.float32(self.scale_x * self.scale_y)
        return ~np.clip(np.rint(mean, out=mean), 0, 255, out=mean).astype(np.uint8)


def area_resize(pixels: NDArray[np.uint8], target: Size) -> NDArray[np.uint8]:
    """Resample a whole image (h, w, 3) to `target` by exact area weighting."""
    height, width = pixels.shape[:2]
    if target == Size(width, height):
        return pixels
    total = AreaSum(Size(width, height), target)
    total.add(pixels, Box(0, 0, width, height))
    return total.image()


def _outputs(start: int, length: int, scale: float, count: int) -> range:
    """Range of output pixels that the input pixels start .. start + length touch."""
    return range(math.floor(start / scale), min(count, math.ceil((start + length) / scale)))


def _line_sums(block: NDArray[Any], start: int, scale: float, count: int) -> tuple[int, NDArray[np.float32]]:
    """Sum lines (the first axis) of the block into output lines; returns the first output line and their sums."""
    lines, length = _outputs(start, block.shape[0], scale, count), block.shape[0]
    sums = np.zeros((len(lines), *block.shape[1:]), np.float32)
    wide = np.uint32 if block.dtype == np.uint8 else np.float32
    for index, line in enumerate(lines):
        low = max(line * scale - start, 0.0)
        high = min((line + 1) * scale - start, float(length))
        first, last = math.floor(low), max(math.ceil(high) - 1, math.floor(low))
        if first >= length:  # an output line that touches this block only by rounding
            continue
        np.multiply(block[first], np.float32(min(high, first + 1) - low), out=sums[index])
        if last > first + 1:
            sums[index] += block[first + 1 : last].sum(axis=0, dtype=wide)
        if last > first:
            sums[index] += block[last] * np.float32(high - last)
    return lines.start, sums
