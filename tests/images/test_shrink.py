"""Area means in blocks: equal bits to adding line by line, and to the definition."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.area_filter import area_weights
from wsi_pipeline.images.shrink import AreaSum, area_resize


def add_line_by_line(block: NDArray[np.generic], start: int, scale: float, count: int) -> NDArray[np.float32]:
    """Output lines (count, ...) of input lines in float32: first line, sum of the whole lines, last line."""
    sums = np.zeros((count, *block.shape[1:]), np.float32)
    for line in range(math.floor(start / scale), min(count, math.ceil((start + len(block)) / scale))):
        low, high = max(line * scale - start, 0.0), min((line + 1) * scale - start, float(len(block)))
        first = math.floor(low)
        last = max(math.ceil(high) - 1, first)
        if first >= len(block):
            continue
        sums[line] = block[first] * np.float32(min(high, first + 1) - low)
        if last > first + 1:
            sums[line] += block[first + 1 : last].sum(axis=0, dtype=np.uint32 if block.dtype == np.uint8 else None)
        if last > first:
            sums[line] += block[last] * np.float32(high - last)
    return sums


@pytest.mark.parametrize(
    ("size", "target", "blocks"),
    [
        ((620, 410), (155, 103), (1000, 1000)),
        ((620, 410), (163, 97), (200, 128)),
        ((300, 900), (299, 3), (300, 900)),  # 300 lines in one: more than 16 bits hold
        ((50, 40), (75, 90), (17, 13)),  # enlarged
        ((97, 31), (1, 1), (97, 31)),
        ((30, 20), (30, 20), (7, 20)),
    ],
)
def test_sums_of_blocks_are_those_of_lines_added_one_by_one(
    size: tuple[int, int], target: tuple[int, int], blocks: tuple[int, int]
) -> None:
    """Equal bits, so that a faster sum changes no mask and no picture."""
    (width, height), (across, down) = size, target
    image = np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8)
    total = AreaSum(Size(*size), Size(*target))
    expected = np.zeros((down, across, 3), np.float32)
    for y, x in product(range(0, height, blocks[1]), range(0, width, blocks[0])):
        block = image[y : y + blocks[1], x : x + blocks[0]]
        total.add(block, Box(x, y, block.shape[1], block.shape[0]))
        rows = add_line_by_line(~block, y, height / down, down)
        expected += add_line_by_line(rows.swapaxes(0, 1), x, width / across, across).swapaxes(0, 1)
    mean = expected / np.float32(width / across * (height / down))
    assert np.array_equal(total.image(), ~np.clip(np.rint(mean), 0, 255).astype(np.uint8))


def test_each_pixel_is_the_mean_of_the_area_it_covers() -> None:
    """In float64 from the overlap of pixels, rounded: at most one grey value off, where the mean is half-way."""
    image = np.random.default_rng(4).integers(0, 256, (333, 418, 3)).astype(np.uint8)
    rows, columns = area_weights(333, 87), area_weights(418, 110)
    exact = np.einsum("rh,cw,hwk->rck", rows, columns, image.astype(np.float64), optimize=True)
    off = np.abs(area_resize(image, Size(110, 87)) - exact)
    assert off.max() < 0.5001
