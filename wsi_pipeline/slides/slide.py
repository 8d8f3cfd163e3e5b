"""The contract of every slide backend.

Sources: level and location conventions as in OpenSlide (`openslide_read_region`): x and y are level-0
pixels, width and height are pixels of the level that is read.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.registry import Registry
from wsi_pipeline.slides.image_choice import ImageChoice
from wsi_pipeline.slides.slide_info import Level, SlideInfo, StoredTiles
from wsi_pipeline.slides.thumbnail import png_of, read_whole

__all__ = [
    "MAX_REGION_PIXELS", "SLIDE_BACKENDS", "Level", "Opener", "Slide", "SlideInfo", "StoredTiles", "level_box",
    "levels_of",
]  # fmt: skip

MAX_REGION_PIXELS = 1 << 28
"""Largest region (in pixels, 256 Mpx = 768 MB) that a single read may allocate."""


class Slide(ABC):
    """One open whole-slide image. Use as a context manager; safe to read from several threads.

    path        what was opened; None for a slide in memory
    given_mpp   micrometres per pixel for a slide that states none, as the user gave it
    """

    info: SlideInfo
    path: Path | None = None
    given_mpp: float | None = None

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

        Transparent, missing and outside areas are white. Raises SlideError for an unknown
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
        """The stored tiles of a level if the backend decodes them itself, else None."""
        return None

    @property
    def name(self) -> str:
        """File name; "in memory" for a slide without a file."""
        return self.path.name if self.path else "in memory"

    def thumbnail(self, max_px: int = 1024) -> NDArray[np.uint8]:
        """The whole slide as uint8 RGB (h, w, 3), at most `max_px` on the longer side, by area averaging."""
        longest = max(self.info.size.width, self.info.size.height)
        return read_whole(self, 1.0, max(1.0, longest / max_px))

    def __repr__(self) -> str:
        size, mpp = self.info.size, self.info.mpp
        given = "resolution not stated" if self.given_mpp is None else f"{self.given_mpp:.4g} mpp (given)"
        spacing = given if mpp is None else f"{mpp:.4g} mpp"
        count = len(self.info.levels)
        levels = f"{count} level{'s' if count > 1 else ''}"
        return f"<Slide {self.name}: {size.width} x {size.height} px, {spacing}, {levels}, {self.info.backend}>"

    def _repr_png_(self) -> bytes | None:
        """The thumbnail in a notebook; nothing once the slide is closed."""
        try:
            picture = self.thumbnail(512)
        except SlideError:
            return None
        return png_of(picture)

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


Opener = Callable[[Path, ImageChoice], Slide]
SLIDE_BACKENDS: Registry[Opener] = Registry("slide backend")
"""The registered backends. Filled by importing `wsi_pipeline.slides.open`."""


def levels_of(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels from (width, height) pairs, finest first; downsample is the mean of both axes, as in OpenSlide."""
    width, height = sizes[0]
    return tuple(Level(Size(w, h), (width / w + height / h) / 2) for w, h in sizes)


def level_box(level: Level, x: int, y: int, width: int, height: int) -> Box:
    """The rectangle of `read_region` in pixels of `level`, its corner at the nearest pixel."""
    left, top = (math.floor(value / level.downsample + 0.5) for value in (x, y))
    return Box(left, top, width, height)
