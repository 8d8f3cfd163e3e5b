"""The contract every slide backend keeps, whatever the file behind it.

Sources: level and location conventions as in OpenSlide (`openslide_read_region`): x and y are level-0
pixels, width and height are pixels of the level that is read.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.registry import Registry
from wsi_pipeline.slides.image_choice import ImageChoice

MAX_REGION_PIXELS = 1 << 28
"""Largest region (in pixels, 256 Mpx = 768 MB) that a single read may allocate."""


@dataclass(frozen=True)
class Level:
    """One pyramid level: its size in its own pixels and how many level-0 pixels one of them spans."""

    size: Size
    downsample: float


@dataclass(frozen=True)
class SlideInfo:
    """What a slide says about itself.

    levels      finest first; level 0 has downsample 1
    mpp         micrometres per pixel at level 0 as the file states it (not yet judged), or None
    objective   nominal magnification as the file states it, or None
    vendor      scanner or format family, for people
    backend     the registered name of the backend that reads it
    mpp_note    why `mpp` is None although the file states a resolution (x and y differ), else empty
    notes       what of the file is shown, where it holds more, and what is odd about how it is read
    bounds      the part of level 0 that was scanned, where the file says so (`openslide.bounds-*`), or None
    """

    levels: tuple[Level, ...]
    mpp: float | None
    objective: float | None
    vendor: str
    backend: str
    mpp_note: str = ""
    notes: tuple[str, ...] = ()
    bounds: Box | None = None

    @property
    def size(self) -> Size:
        """Level-0 size in pixels."""
        return self.levels[0].size

    @property
    def origin(self) -> tuple[int, int]:
        """Level-0 pixel (x, y) that QuPath calls (0, 0): the corner of the bounds."""
        return (self.bounds.x, self.bounds.y) if self.bounds else (0, 0)


class StoredTiles(Protocol):
    """The compressed tiles of one level, for readers that want each of them once.

    tile            size of every tile, pixels of the level; the last column and row may reach past the level
    columns, rows   how many there are
    scales          whole-number shrinks that `decode` can do, ascending from 1; each divides both sides of a tile
    """

    tile: Size
    columns: int
    rows: int
    scales: tuple[int, ...]

    def decode(self, column: int, row: int, shrink: int = 1, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """One tile as uint8 RGB (tile height / shrink, tile width / shrink, 3).

        out   contiguous memory of that shape, which the codec may use for the result; it saves time only

        White where the file holds no such tile and beyond the edge of the level. A shrunk tile is close to the area
        mean of the whole one (docs/slides.md says how close). Raises SlideError with the tile's position where it
        does not decode.
        """

    def raw(self, column: int, row: int) -> bytes | None:
        """The tile as a JPEG file of its own, not decoded; None where there is none or it is no JPEG."""


class Slide(ABC):
    """One open whole-slide image. Use as a context manager; safe to read from several threads."""

    info: SlideInfo

    @abstractmethod
    def _read(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """Backend's read: same arguments and result as `read_region`, arguments already checked."""

    @abstractmethod
    def close(self) -> None:
        """Release the file. Reading after it raises SlideError."""

    def read_region(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a rectangle as uint8 RGB of shape (height, width, 3).

        x, y            level-0 pixels of the top-left corner; may lie outside the slide. Where they fall
                        between two pixels of `level`, OpenSlide interpolates and the other backends take
                        the nearest
        width, height   pixels of `level`

        Whatever is transparent, missing or outside the slide is white. Raises SlideError for an unknown
        level, an empty or oversized rectangle, or a tile that does not decode (with its position).
        """
        if not 0 <= level < len(self.info.levels):
            raise SlideError(f"level must be 0 to {len(self.info.levels) - 1}, got {level}")
        if width < 1 or height < 1 or width * height > MAX_REGION_PIXELS:
            raise SlideError(
                f"region must have between 1 and {MAX_REGION_PIXELS} pixels, got {width} x {height}",
                todo="Ask for a smaller region (patches: a smaller --patch-px or a finer --mpp).",
            )
        return self._read(x, y, level, width, height)

    def tiles(self, level: int) -> StoredTiles | None:
        """The stored tiles of a level where the backend decodes them itself, else None."""
        return None

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


Opener = Callable[[Path, ImageChoice], Slide]
SLIDE_BACKENDS: Registry[Opener] = Registry("slide backend")
"""What can open a file. Filled by importing `wsi_pipeline.slides.open`."""


def levels_of(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from (width, height) pairs, finest first; downsample is the mean of both axes, as in OpenSlide."""
    width, height = sizes[0]
    return tuple(Level(Size(w, h), (width / w + height / h) / 2) for w, h in sizes)


def level_box(level: Level, x: int, y: int, width: int, height: int) -> Box:
    """The rectangle of `read_region` in pixels of `level`, its corner at the nearest pixel."""
    left, top = (math.floor(value / level.downsample + 0.5) for value in (x, y))
    return Box(left, top, width, height)
