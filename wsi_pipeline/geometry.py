"""Sizes and boxes: frozen, integer, and always in the pixels of one stated image level."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.errors import WsiPipelineError


@dataclass(frozen=True)
class Size:
    """Width and height in pixels, both at least 1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise WsiPipelineError(f"size must be at least 1 x 1 pixels, got {self.width} x {self.height}")

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height


@dataclass(frozen=True)
class Box:
    """A rectangle: top-left corner (x, y) and extent (width, height), right and bottom edges excluded."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column past the box."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row past the box."""
        return self.y + self.height

    def clipped(self, size: Size) -> Box | None:
        """The part of the box inside an image of `size`, or None if they do not meet."""
        left, top = max(self.x, 0), max(self.y, 0)
        right, bottom = min(self.right, size.width), min(self.bottom, size.height)
        return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None
