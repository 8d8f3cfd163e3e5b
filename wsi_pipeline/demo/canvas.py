"""The canvas that tissue is painted on: the amounts of haematoxylin and eosin in every pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wsi_pipeline.demo.noise import Array
from wsi_pipeline.geometry import Size

MARGIN = 64
"""Spare pixels on each side, so that objects across the edge can be painted whole."""

BLOCK = 512
"""Side of the squares in which a picture is processed."""

Window = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Canvas:
    """Stain amounts, float32 (height + 2 margins, width + 2 margins); 1 is a well-stained structure.

    Positions given to its methods are slide pixels; `MARGIN` is added inside.
    """

    size: Size
    haematoxylin: Array
    eosin: Array

    @classmethod
    def empty(cls, size: Size) -> Canvas:
        """An unstained canvas for a picture of `size` pixels."""
        shape = (size.height + 2 * MARGIN, size.width + 2 * MARGIN)
        return cls(size, np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def centred(self, x: int, y: int, half: int) -> Window | None:
        """Array slices of the square of 2 * half + 1 pixels around (x, y), or None if it leaves the canvas."""
        left, top = x + MARGIN - half, y + MARGIN - half
        right, bottom = left + 2 * half + 1, top + 2 * half + 1
        if left < 0 or top < 0 or bottom > self.eosin.shape[0] or right > self.eosin.shape[1]:
            return None
        return slice(top, bottom), slice(left, right)

    def clipped(self, left: int, top: int, right: int, bottom: int) -> tuple[Window, Array, Array] | None:
        """Slices of a rectangle clipped to the canvas, with the x row and y column of its pixels."""
        x0, y0 = max(left, -MARGIN), max(top, -MARGIN)
        x1, y1 = min(right, self.size.width + MARGIN), min(bottom, self.size.height + MARGIN)
        if x1 <= x0 or y1 <= y0:
            return None
        window = slice(y0 + MARGIN, y1 + MARGIN), slice(x0 + MARGIN, x1 + MARGIN)
        return window, np.arange(x0, x1, dtype=np.float32)[None, :], np.arange(y0, y1, dtype=np.float32)[:, None]

    def blend(self, window: Window, alpha: Array, haematoxylin: Array | float, eosin: Array | float) -> None:
        """Lay stain amounts over a window with opacity `alpha` (0 to 1)."""
        for layer, amount in ((self.haematoxylin[window], haematoxylin), (self.eosin[window], eosin)):
            layer += alpha * (amount - layer)


def blocks(size: Size, side: int = BLOCK) -> Iterator[Window]:
    """Row and column slices that cover a picture of `size` in squares of `side` pixels, in reading order."""
    for top in range(0, size.height, side):
        for left in range(0, size.width, side):
            yield slice(top, min(top + side, size.height)), slice(left, min(left + side, size.width))
