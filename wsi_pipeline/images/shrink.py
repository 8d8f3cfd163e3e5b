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

_AT_A_TIME = 1 << 17
"""Values of the output lines that are summed at a time: few calls, and what they take stays in the cache."""
_MOST_IN_UINT16 = 257
"""Most lines of bytes whose sum fits into 16 bits."""


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
        # Columns are summed as rows of the transposed array, many times faster than along its short last axes. The
        # order (column, colour, row) is faster to make than one that keeps the three colours of a pixel together.
        turned = np.ascontiguousarray(sums.reshape(len(sums), -1).T).reshape(sums.shape[1], 3, len(sums))
        column, sums = _line_sums(turned, box.x, self.scale_x, self.target.width)
        self._dark[row : row + sums.shape[2], column : column + len(sums)] += sums.transpose(2, 0, 1)

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


def _line_sums(block: NDArray[Any], start: int, scale: float, count: int) -> tuple[int, NDArray[np.float32]]:
    """Sum lines (the first axis) of the block into output lines; returns the first output line and their sums.

    Several output lines are summed at a time: each is its first line in part, the sum of the lines that it covers whole
    from first to last, and its last line in part, in this order, so that rounding does not depend on the number.
    """
    length = block.shape[0]
    begin = math.floor(start / scale)
    number = np.arange(begin, min(count, math.ceil((start + length) / scale)))
    low = np.maximum(number * scale - start, 0.0)
    high = np.minimum((number + 1) * scale - start, float(length))
    first = np.floor(low).astype(np.int64)
    last = np.maximum(np.ceil(high).astype(np.int64) - 1, first)
    flat = block.reshape(length, -1)
    sums = np.zeros((len(number), flat.shape[1]), np.float32)
    there = int(np.searchsorted(first, length))  # the last output line may touch this block only by rounding
    step = max(1, _AT_A_TIME // max(1, flat.shape[1]))
    for lines in (slice(at, min(at + step, there)) for at in range(0, there, step)):
        starts, ends, out = first[lines], last[lines], sums[lines]
        np.multiply(flat[starts], _column(np.minimum(high[lines], starts + 1) - low[lines]), out=out)
        whole = _sums_between(flat, starts, ends)
        if whole is not None:
            out += whole
        out += flat[ends] * _column(np.where(ends > starts, high[lines] - ends, 0.0))
    return begin, sums.reshape(len(number), *block.shape[1:])


def _sums_between(flat: NDArray[Any], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[Any] | None:
    """The sum of the lines between each first and last line, both left out; None if there are none at all."""
    counts = last - first - 1
    most, least = int(counts.max(initial=0)), int(counts.min(initial=0))
    if most <= 0:
        return None
    wide = flat.dtype if flat.dtype != np.uint8 else np.uint16 if most <= _MOST_IN_UINT16 else np.uint32
    total = np.zeros((len(first), flat.shape[1]), wide)
    for place in range(1, most + 1):
        if place <= least:
            total += flat[first + place]
        else:
            longer = counts >= place
            total[longer] += flat[first[longer] + place]
    return total


def _column(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    return weights.astype(np.float32)[:, None]
