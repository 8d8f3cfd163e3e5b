"""What a slide file states: its levels, its resolution, the tiles it stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size


@dataclass(frozen=True)
class Level:
    """One pyramid level: its size in its own pixels and how many level-0 pixels one of them spans."""

    size: Size
    downsample: float


@dataclass(frozen=True)
class SlideInfo:
    """What a slide file states about itself.

    levels      finest first; level 0 has downsample 1
    mpp         micrometres per pixel at level 0 as the file states it (not yet judged), or None
    objective   nominal magnification as the file states it, or None
    vendor      scanner or format family, for messages
    backend     the registered name of the backend that reads it
    mpp_note    why `mpp` is None although the file states a resolution (x and y differ), else empty
    notes       which part of a multi-image file is shown, and anything unusual about how it is read
    bounds      the part of level 0 that was scanned, if the file states it (`openslide.bounds-*`), else None
    turned      shown rotated as its orientation tag says, so other programs may count from another corner
    """

    levels: tuple[Level, ...]
    mpp: float | None
    objective: float | None
    vendor: str
    backend: str
    mpp_note: str = ""
    notes: tuple[str, ...] = ()
    bounds: Box | None = None
    turned: bool = False

    @property
    def size(self) -> Size:
        """Level-0 size in pixels."""
        return self.levels[0].size

    @property
    def origin(self) -> tuple[int, int]:
        """Level-0 pixel (x, y) that QuPath calls (0, 0): the corner of the bounds."""
        return (self.bounds.x, self.bounds.y) if self.bounds else (0, 0)


def check_upright(info: SlideInfo, drawn: str) -> None:
    """Raise SlideError if a slide is shown rotated: coordinates drawn on it may count from another corner."""
    if info.turned:
        raise SlideError(
            f"the slide is turned as its orientation tag says, and its {drawn} may count from the corner as stored",
            todo="Save the slide upright (orientation 1), and draw on that.",
        )


@runtime_checkable
class ExpectedTiles(Protocol):
    """Stored tiles that lie at an address, so that it pays to say beforehand which will be decoded.

    remote   whether they do; if not, `expect` need not be called
    """

    remote: bool

    def expect(self, places: NDArray[np.int64], *, in_order: bool) -> None:
        """Fetch tiles at (column, row) int64 (N, 2): all now, or ahead of their decoding, each once, in this order."""


def expect_tiles(tiles: StoredTiles | None, places: Callable[[], NDArray[np.int64]]) -> None:
    """Begin to fetch the tiles that `places` returns, in the order of their decoding; nothing for local slides."""
    waiting: object = tiles
    if isinstance(waiting, ExpectedTiles) and waiting.remote:
        waiting.expect(places(), in_order=True)


class StoredTiles(Protocol):
    """The compressed tiles of one level, for readers that decode each tile once.

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

        out   contiguous memory of that shape, which the codec may use for the result to save an allocation

        White if the file has no such tile, and beyond the edge of the level. A shrunk tile is close to the area
        mean of the whole one (docs/slides.md says how close). Raises SlideError with the tile's position if it
        does not decode.
        """

    def raw(self, column: int, row: int, *, at_once: bool = False) -> bytes | None:
        """The tile as a JPEG file, not decoded; None if it is missing or not a JPEG.

        at_once   return None too if reading it would wait for a disk or network: for a server's event loop
        """
