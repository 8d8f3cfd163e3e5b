"""Compare a few tiles with the other backend when a slide is opened.

JPEG has more dialects than any decoder covers. If our pixels differ from the other backend's, that backend
reads the level instead.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.images.area_filter import block_mean
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.tiles.tile_level import TiledLevel

log = logging.getLogger(__name__)

_COARSE = 16
_MOST_COARSE_DIFFERENCE = 12
"""Tolerance for means of 16 x 16 pixels on lower levels, where OpenSlide interpolates between pixels."""


def same_pixels(levels: dict[int, TiledLevel], other: Slide, name: str) -> dict[int, TiledLevel]:
    """The levels whose sampled tiles decode to what `other` reads; levels without a comparable tile are left out.

    At level 0 up to three tiles (the one with most bytes, a middling one, the last) must be equal; below, the one with
    most bytes must show the same picture. `name` is the slide's, for the log.
    """
    good = {}
    for number, level in levels.items():
        why = _fault(number, level, other)
        if why:
            log.info("%s: level %d is read by %s: %s", name, number, other.info.backend, why)
        else:
            good[number] = level
    return good


def sampled_tiles(number: int, level: TiledLevel) -> list[tuple[int, int]]:
    """(start, stop) in the file of the tiles that `same_pixels` compares."""
    return level.ranges(_sample(level.counts, level.missing, _samples(number)))


def sampled_of_page(number: int, page: Any) -> list[tuple[int, int]]:
    """The same of a level that has not been looked at: tifffile's page."""
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    chosen = _sample(counts, (counts == 0) | (offsets == 0), _samples(number))
    return [(int(offsets[place]), int(offsets[place] + counts[place])) for place in chosen if place < len(offsets)]


def _samples(number: int) -> int:
    return 1 if number else 3


def _fault(number: int, level: TiledLevel, other: Slide) -> str:
    """Why a level must not be decoded here, or an empty string."""
    compared = 0
    for index in _sample(level.counts, level.missing, _samples(number)):
        row, column = divmod(int(index), level.columns)
        theirs = _read(number, level, other, column, row)
        if theirs is None:
            continue
        try:
            ours = level.decode(column, row)
        except SlideError as error:
            return error.what
        difference = _difference(ours, theirs, coarse=number > 0)
        if difference > (_MOST_COARSE_DIFFERENCE if number else 0):
            return f"pixels of tile ({column}, {row}) differ by up to {difference}"
        compared += 1
    return "" if compared else "no tile could be compared"


def _sample(counts: NDArray[np.int64], missing: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Up to `count` tiles of the file: the largest, the median by size, the last; else the first one."""
    there = np.flatnonzero(~missing)
    if not len(there):
        return np.zeros(1, np.int64)
    by_size = there[np.argsort(counts[there], kind="stable")]
    return np.unique([by_size[-1], by_size[len(by_size) // 2], there[-1]][:count])


def _read(number: int, level: TiledLevel, other: Slide, column: int, row: int) -> NDArray[np.uint8] | None:
    """One tile as the other backend reads it; None if it does not decode there either."""
    downsample = other.info.levels[number].downsample
    x, y = round(column * level.tile.width * downsample), round(row * level.tile.height * downsample)
    try:
        return other.read_region(x, y, number, level.tile.width, level.tile.height)
    except SlideError:
        return None


def _difference(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], *, coarse: bool) -> int:
    """The largest difference in grey values, of single pixels or of means of 16 x 16."""
    if coarse:
        ours, theirs = block_mean(ours, _COARSE), block_mean(theirs, _COARSE)
    return int(np.abs(ours.astype(np.int16) - theirs).max())
