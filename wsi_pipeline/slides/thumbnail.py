"""A whole slide as one small image, for tissue detection and pictures: exact area averages, bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.base import Level, Slide
from wsi_pipeline.slides.shrink import AreaSum

MAX_THUMBNAIL_PIXELS = 1 << 26
"""Largest result of `read_whole` (64 Mpx, 192 MB) unless told otherwise."""

BLOCK_HEIGHT, BLOCK_PIXELS = 1024, 10 << 20
"""Blocks are read at multiples of 1024 rows, so that tiles of 256, 512 or 1024 px are decoded once, and hold
at most 10 Mpx (30 MB). They are wide because strips span the slide."""

READERS = 2
"""Blocks read at the same time: enough to keep two cores busy, with at most three blocks in memory."""

_LEVEL_SLACK = 1.005
"""Level sizes are rounded down, which puts a nominal 16x level at 16.01: still as fine as 16x."""


def read_whole(
    slide: Slide, spacing_mpp: float, target_mpp: float, max_pixels: int = MAX_THUMBNAIL_PIXELS
) -> NDArray[np.uint8]:
    """The entire slide at about `target_mpp`, as uint8 RGB (h, w, 3) on white.

    spacing_mpp   micrometres per level-0 pixel
    target_mpp    micrometres per pixel wanted

    The size is round(level-0 size * spacing_mpp / target_mpp), at least 1 x 1, and spans the slide exactly:
    pixel j covers level-0 x from j * W / w to (j + 1) * W / w. Reads the coarsest level still at least as fine
    as the target, block by block. Raises SlideError where the result would exceed `max_pixels`, or where a
    region does not decode.
    """
    full = slide.info.size
    target = Size(*(max(1, round(side * spacing_mpp / target_mpp)) for side in (full.width, full.height)))
    if target.pixels > max_pixels:
        raise SlideError(
            f"{target.width} x {target.height} pixels at {target_mpp:g} mpp exceed the limit of {max_pixels}",
            todo="Ask for a coarser resolution (a larger mpp).",
        )
    number = best_level(slide.info.levels, target_mpp / spacing_mpp)
    level = slide.info.levels[number]
    total = AreaSum(level.size, target)
    for block, pixels in _read_blocks(slide, number):
        total.add(pixels, block)
    return total.image()


def best_level(levels: tuple[Level, ...], downsample: float) -> int:
    """Number of the coarsest level that is at least as fine as `downsample` (level 0 if none is)."""
    fine = [number for number, level in enumerate(levels) if level.downsample <= downsample * _LEVEL_SLACK]
    return max(fine, key=lambda number: levels[number].downsample, default=0)


def _read_blocks(slide: Slide, number: int) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
    """The blocks of a level in order, READERS of them read ahead."""
    level = slide.info.levels[number]

    def read(block: Box) -> NDArray[np.uint8]:
        corner = (round(block.x * level.downsample), round(block.y * level.downsample))
        return slide.read_region(*corner, number, block.width, block.height)

    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[tuple[Box, Future[NDArray[np.uint8]]]] = deque()
        try:
            for block in _blocks(level.size):
                waiting.append((block, pool.submit(read, block)))
                if len(waiting) > READERS:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _blocks(size: Size) -> Iterator[Box]:
    width = max(BLOCK_HEIGHT, BLOCK_PIXELS // BLOCK_HEIGHT // BLOCK_HEIGHT * BLOCK_HEIGHT)
    for y in range(0, size.height, BLOCK_HEIGHT):
        for x in range(0, size.width, width):
            yield Box(x, y, min(width, size.width - x), min(BLOCK_HEIGHT, size.height - y))
