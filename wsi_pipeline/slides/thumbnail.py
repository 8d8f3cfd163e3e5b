"""A whole slide as one small image, for tissue detection and pictures: exact area averages, bounded memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.shrink import AreaSum
from wsi_pipeline.slides.slide_info import Level, SlideInfo, StoredTiles, expect_tiles
from wsi_pipeline.system.prefetch import prefetch

Pixels = NDArray[np.uint8]

MAX_THUMBNAIL_PIXELS = 1 << 26
"""Default limit of the result of `read_whole` (64 Mpx, 192 MB)."""

BLOCK_HEIGHT, BLOCK_PIXELS = 1024, 10 << 20
"""Blocks are read at multiples of 1024 rows, so that tiles of 256, 512 or 1024 px are decoded once, and hold
at most 10 Mpx (30 MB). They are wide because strips span the slide."""

READERS = 2
"""Blocks read at the same time: enough to keep two cores busy, with at most three blocks in memory."""

SHRUNK_PIXELS = 3
"""If tiles are shrunk while decoding, each measured pixel spans at least this many of their pixels, since those
across its edge are counted in part, as if they were of one colour."""

SHRUNK_BLOCK_PIXELS = 1 << 20
"""Largest block of shrunk tiles in pixels, but always at least one row of tiles."""

_LEVEL_SLACK = 1.005
"""Level sizes are rounded down, which puts a nominal 16x level at 16.01: still as fine as 16x."""


class LevelReader(Protocol):
    """What `read_whole` needs of a slide; see `slide.Slide`."""

    @property
    def info(self) -> SlideInfo: ...

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]: ...

    def tiles(self, level: int) -> StoredTiles | None: ...


def read_whole(
    slide: LevelReader,
    spacing_mpp: float,
    target_mpp: float,
    exact_mpp: float | None = None,
    max_pixels: int = MAX_THUMBNAIL_PIXELS,
) -> NDArray[np.uint8]:
    """The entire slide at about `target_mpp`, as uint8 RGB (h, w, 3) on white.

    spacing_mpp   micrometres per level-0 pixel
    target_mpp    micrometres per pixel wanted
    exact_mpp     micrometres per pixel at which the picture is measured, if coarser than `target_mpp`

    The size is round(level-0 size * spacing_mpp / target_mpp), at least 1 x 1, and spans the slide exactly:
    pixel j covers level-0 x from j * W / w to (j + 1) * W / w. Reads the coarsest level still at least as fine
    as the target, block by block, with stored tiles shrunk while decoding if the backend can. Raises
    SlideError if the result would exceed `max_pixels`, or if a region does not decode.
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
    most = min(level.size.width / target.width, level.size.height / target.height)
    exact = max(most, level.size.width * (exact_mpp or 0) / (full.width * spacing_mpp))
    shrink, blocks = _blocks_for(slide, number, most, exact / SHRUNK_PIXELS)
    total = AreaSum(level.size, target, shrink)
    for block, pixels in blocks:
        total.add(pixels, block)
    return total.image()


def png_of(picture: NDArray[np.uint8]) -> bytes:
    """A picture uint8 RGB (h, w, 3) as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def best_level(levels: tuple[Level, ...], downsample: float) -> int:
    """Number of the coarsest level that is at least as fine as `downsample` (level 0 if none is)."""
    fine = [number for number, level in enumerate(levels) if level.downsample <= downsample * _LEVEL_SLACK]
    return max(fine, key=lambda number: levels[number].downsample, default=0)


def _blocks_for(slide: LevelReader, number: int, *limits: float) -> tuple[int, Iterator[tuple[Box, Pixels]]]:
    """How far tiles are shrunk while decoding, within the limits, and the blocks of a level at that scale."""
    tiles = slide.tiles(number)
    shrink = max(scale for scale in tiles.scales if scale == 1 or scale <= min(limits)) if tiles else 1
    if tiles is None or shrink == 1:
        return 1, _read_blocks(slide, number)
    return shrink, _in_order(*_shrunk_rows(tiles, slide.info.levels[number].size, shrink))


def _read_blocks(slide: LevelReader, number: int) -> Iterator[tuple[Box, Pixels]]:
    """The blocks of a level in order."""
    level = slide.info.levels[number]

    def read(block: Box) -> Pixels:
        """Read a block of the level, uint8 (h, w, 3)."""
        corner = (round(block.x * level.downsample), round(block.y * level.downsample))
        return slide.read_region(*corner, number, block.width, block.height)

    return _in_order(_blocks(level.size), read)


def _shrunk_rows(tiles: StoredTiles, size: Size, shrink: int) -> tuple[Iterator[Box], Callable[[Box], Pixels]]:
    """The rows of tiles of a level as boxes of shrunk pixels, a few rows each, and the function that reads one."""
    expect_tiles(tiles, lambda: np.stack(np.divmod(np.arange(tiles.columns * tiles.rows), tiles.columns)[::-1], axis=1))
    width, height = tiles.tile.width // shrink, tiles.tile.height // shrink
    whole = Size(-(-size.width // shrink), -(-size.height // shrink))
    band = height * max(1, SHRUNK_BLOCK_PIXELS // (whole.width * height))
    boxes = (Box(0, y, whole.width, min(band, whole.height - y)) for y in range(0, whole.height, band))

    def read(box: Box) -> Pixels:
        """Decode the tiles of a box, shrunk, uint8 (h, w, 3)."""
        image = np.empty((box.height, box.width, 3), np.uint8)
        for y in range(0, box.height, height):
            for column in range(tiles.columns):
                part = image[y : y + height, column * width : (column + 1) * width]
                part[...] = tiles.decode(column, (box.y + y) // height, shrink)[: part.shape[0], : part.shape[1]]
        return image

    return boxes, read


def _in_order(boxes: Iterable[Box], read: Callable[[Box], Pixels]) -> Iterator[tuple[Box, Pixels]]:
    """Each box with the pixels that `read` returns for it, READERS boxes ahead."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from prefetch(pool, lambda box: (box, read(box)), boxes, READERS)


def _blocks(size: Size) -> Iterator[Box]:
    width = max(BLOCK_HEIGHT, BLOCK_PIXELS // BLOCK_HEIGHT // BLOCK_HEIGHT * BLOCK_HEIGHT)
    for y in range(0, size.height, BLOCK_HEIGHT):
        for x in range(0, size.width, width):
            yield Box(x, y, min(width, size.width - x), min(BLOCK_HEIGHT, size.height - y))
