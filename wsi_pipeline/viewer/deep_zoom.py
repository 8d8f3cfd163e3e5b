"""Tiles of a slide for a deep-zoom viewer: on the slide's own levels and tile grid, as stored if possible.

A tile that the slide stores as JPEG is sent with its bytes unchanged. All others are decoded by our reader: tiles at
the right and lower edge (cut where the picture ends, and sent as PNG so that they are exact too), levels in other
formats (sent as JPEG), and levels that are missing between the slide's own or above the coarsest.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import UsageError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.area_filter import block_mean
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.slide_info import StoredTiles, expect_tiles

Pixels = NDArray[np.uint8]

TILE_PX = 512
"""Side of tiles where the slide has no grid that our reader knows."""
SMALLEST_PX = 512
"""The coarsest level fits into a square of this side."""
QUALITY = 90
"""JPEG quality of tiles that are encoded here."""
_WIDEST_GAP = 4.5
"""Largest step between two levels; wider ones are filled, as else a view would need too many tiles."""
_FILL = 4
_STEP = 2
_READ_AT_ONCE = 4
"""Shrinks up to this are made from one read; coarser tiles are put together from four finer ones."""
_KEPT_PIXELS = 16 << 20
"""Levels of up to this size are decoded once, at full size; from larger ones tiles are shrunk while they are decoded.
A slide keeps 64 MB of decoded tiles."""

JPEG, PNG = "image/jpeg", "image/png"


class Tile(NamedTuple):
    """An encoded tile."""

    data: bytes
    media: str


@dataclass(frozen=True)
class ViewLevel:
    """One level of the viewer; lists of levels start with the coarsest.

    size     size of this level, pixels
    tile     size of a tile, pixels, before the last column and row are cut
    source   number of the slide's level that it is made from; factor: by how much that is shrunk, 1 if not at all
    stored   whether the slide's own tiles are the tiles of this level
    """

    size: Size
    tile: Size
    source: int
    factor: int
    stored: bool

    @property
    def columns(self) -> int:
        """Number of tile columns."""
        return -(-self.size.width // self.tile.width)

    @property
    def rows(self) -> int:
        """Number of tile rows."""
        return -(-self.size.height // self.tile.height)

    def has_whole(self, column: int, row: int) -> bool:
        """Whether a tile is one of the slide's own that does not reach past the level."""
        right, lower = (column + 1) * self.tile.width, (row + 1) * self.tile.height
        return self.stored and column >= 0 <= row and right <= self.size.width and lower <= self.size.height

    def box(self, column: int, row: int) -> Box:
        """The part of the level that a tile shows. Raises UsageError if there is no such tile."""
        if not (0 <= column < self.columns and 0 <= row < self.rows):
            raise UsageError(f"no tile ({column}, {row}): the level has {self.columns} x {self.rows}")
        x, y = column * self.tile.width, row * self.tile.height
        return Box(x, y, min(self.tile.width, self.size.width - x), min(self.tile.height, self.size.height - y))


class DeepZoom:
    """The tiles of one open slide. Thread-safe.

    overview   the whole slide, uint8 (h, w, 3), used for levels that are not finer than it; or None
    """

    def __init__(self, slide: Slide, overview: Pixels | None = None) -> None:
        self.slide, self.overview = slide, overview
        self.levels = view_levels(slide)
        self._shrunk = {level.source for level in self.levels if level.factor > 1}

    def tile(self, level: int, column: int, row: int) -> Tile:
        """One tile. Raises UsageError for a level or tile that does not exist, SlideError if it cannot be decoded."""
        if not 0 <= level < len(self.levels):
            raise UsageError(f"no level {level}: the slide is shown in {len(self.levels)}")
        chosen = self.levels[level]
        box = chosen.box(column, row)
        found = self.stored_tile(level, column, row)
        if found is not None:
            return found
        stored = self.slide.tiles(chosen.source) if chosen.stored else None
        if stored is None or (chosen.source in self._shrunk and self._kept_whole(chosen.source)):
            pixels = self._pixels(level, box)  # remembered by the slide, as coarser levels are made from them
        else:
            pixels = stored.decode(column, row)[: box.height, : box.width]
        exact = stored is not None and stored.raw(column, row) is not None  # the others lose a little anyway
        return Tile(_png(pixels), PNG) if exact else Tile(jpeg_of(pixels), JPEG)

    def stored_tile(self, level: int, column: int, row: int, *, at_once: bool = False) -> Tile | None:
        """A tile with its bytes as stored; None if it has to be decoded, or (`at_once`) read from a disk.

        Raises SlideError if it is damaged.
        """
        if not 0 <= level < len(self.levels) or not self.levels[level].has_whole(column, row):
            return None
        stored = self.slide.tiles(self.levels[level].source)
        data = stored.raw(column, row, at_once=at_once) if stored is not None else None
        return None if data is None else Tile(data, JPEG)

    def region(self, box: Box, px: int) -> Pixels:
        """A box of level 0 in at most `px` pixels on its longer side, uint8 (h, w, 3)."""
        wanted = max(box.width, box.height) / px
        fine = [level for level in self.levels if self._downsample(level) <= max(1.0, wanted) * 1.01]
        level = fine[0]
        step = self._downsample(level)
        part = Box(
            *(round(v / step) for v in (box.x, box.y)), *(max(1, round(v / step)) for v in (box.width, box.height))
        )
        image = Image.fromarray(self._pixels(self.levels.index(level), part))
        scale = min(1.0, px / max(image.size))
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return np.asarray(image if size == image.size else image.resize(size, Image.Resampling.BOX))

    def _downsample(self, level: ViewLevel) -> float:
        return self.slide.info.size.width / level.size.width

    def _pixels(self, number: int, box: Box) -> Pixels:
        """A box of one level, shrunk from the slide's next finer level."""
        level = self.levels[number]
        if level.factor > 1 and self.overview is not None and level.size.width <= self.overview.shape[1]:
            return self._of_overview(self.overview, level, box)
        stored, step = self.slide.tiles(level.source), 1
        if stored is not None and not self._kept_whole(level.source):
            step = max(scale for scale in stored.scales if level.factor % scale == 0)
        if level.factor > _READ_AT_ONCE * step and self.levels[number + 1].source == level.source:
            return self._of_finer(number, box)
        if stored is not None and step > 1:
            less = level.factor // step
            part = Box(*(value * less for value in (box.x, box.y, box.width, box.height)))
            return block_mean(_of_tiles(stored, step, part), less)
        factor, downsample = level.factor, self.slide.info.levels[level.source].downsample
        corner = (round(box.x * factor * downsample), round(box.y * factor * downsample))
        pixels = self.slide.read_region(*corner, level.source, box.width * factor, box.height * factor)
        return block_mean(pixels, factor)

    def _kept_whole(self, source: int) -> bool:
        """Whether a level of the slide is so small that the slide keeps all its tiles decoded once they were read."""
        size = self.slide.info.levels[source].size
        return size.width * size.height <= _KEPT_PIXELS

    def _of_finer(self, number: int, box: Box) -> Pixels:
        """A box from the next finer level of the same source, one quarter at a time to bound memory at any depth."""
        level, finer = self.levels[number], self.levels[number + 1]
        step = level.factor // finer.factor
        out = np.empty((box.height, box.width, 3), np.uint8)
        half = max(1, -(-max(box.width, box.height) // 2))
        for y in range(0, box.height, half):
            for x in range(0, box.width, half):
                width, height = min(half, box.width - x), min(half, box.height - y)
                part = Box((box.x + x) * step, (box.y + y) * step, width * step, height * step)
                out[y : y + height, x : x + width] = block_mean(self._pixels(number + 1, part), step)
        return out

    def _of_overview(self, overview: Pixels, level: ViewLevel, box: Box) -> Pixels:
        scale = overview.shape[1] / level.size.width, overview.shape[0] / level.size.height
        corners = (box.x * scale[0], box.y * scale[1], box.right * scale[0], box.bottom * scale[1])
        corners = (*corners[:2], min(corners[2], overview.shape[1]), min(corners[3], overview.shape[0]))
        image = Image.fromarray(overview)
        return np.asarray(image.resize((box.width, box.height), Image.Resampling.BOX, box=corners))


def _of_tiles(stored: StoredTiles, shrink: int, box: Box) -> Pixels:
    """A box of a level, in pixels that are `shrink` times its own: from tiles decoded at that size, white beyond."""
    out = np.full((box.height, box.width, 3), 255, np.uint8)
    width, height = stored.tile.width // shrink, stored.tile.height // shrink
    rows = range(box.y // height, min(stored.rows, -(-box.bottom // height)))
    columns = range(box.x // width, min(stored.columns, -(-box.right // width)))
    places = [(column, row) for row in rows for column in columns]
    expect_tiles(stored, lambda: np.array(places, np.int64).reshape(-1, 2))
    for column, row in places:
        top, bottom = max(box.y, row * height), min(box.bottom, (row + 1) * height)
        left, right = max(box.x, column * width), min(box.right, (column + 1) * width)
        within = slice(top - row * height, bottom - row * height), slice(left - column * width, right - column * width)
        out[top - box.y : bottom - box.y, left - box.x : right - box.x] = stored.decode(column, row, shrink)[within]
    return out


def view_levels(slide: Slide) -> tuple[ViewLevel, ...]:
    """The viewer's levels of a slide, coarsest first: its own, plus levels to fill wide gaps between and above them."""
    own = sorted(range(len(slide.info.levels)), key=lambda number: slide.info.levels[number].downsample)
    found: list[ViewLevel] = []
    for place, number in enumerate(own):
        level, stored = slide.info.levels[number], slide.tiles(number)
        if found and level.size == found[-1].size:
            continue
        found.append(ViewLevel(level.size, stored.tile if stored else _square(), number, 1, stored is not None))
        following = slide.info.levels[own[place + 1]] if place + 1 < len(own) else None
        gap = following.downsample / level.downsample if following else _steps_up(level.size)
        factor = step = _FILL if following else _STEP
        while factor * (_WIDEST_GAP / _FILL if following else 0.99) < gap:
            found.append(ViewLevel(_shrunk(level.size, factor), _square(), number, factor, False))
            factor *= step
    return tuple(reversed(found))


def _steps_up(size: Size) -> float:
    """By how much a level has to be shrunk to become the coarsest."""
    return float(_STEP ** np.ceil(np.log2(max(size.width, size.height, SMALLEST_PX) / SMALLEST_PX)))


def _square() -> Size:
    return Size(TILE_PX, TILE_PX)


def _shrunk(size: Size, factor: int) -> Size:
    return Size(-(-size.width // factor), -(-size.height // factor))


def jpeg_of(pixels: Pixels) -> bytes:
    """Pixels (h, w, 3) encoded as JPEG."""
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=QUALITY, colorsubsampling="420")
    return data


def _png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()
