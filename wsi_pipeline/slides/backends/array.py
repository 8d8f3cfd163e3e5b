"""A slide held in memory: the backend for pictures, tests and pixels from other sources."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.images.white import white
from wsi_pipeline.slides.slide import Slide, SlideInfo, level_box, levels_of
from wsi_pipeline.slides.to_rgb import on_white


class ArraySlide(Slide):
    """A slide from a uint8 array (h, w, 3) RGB or (h, w, 4) RGBA with straight alpha.

    mpp, objective   as a file would state them
    downsamples      pyramid levels, made by area shrink: 1 first, then ascending (for example 1, 4, 16)

    Raises SlideError for another shape or dtype, or downsamples out of order.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        *,
        mpp: float | None = None,
        objective: float | None = None,
        downsamples: Sequence[float] = (1,),
    ) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.size == 0:
            raise SlideError(f"pixels must be a uint8 array (h, w, 3 or 4), got {pixels.dtype} {pixels.shape}")
        steps = list(downsamples)
        if steps[:1] != [1] or any(low >= high for low, high in itertools.pairwise(steps)):
            raise SlideError(f"downsamples must start with 1 and ascend, got {steps}")
        rgb = on_white(pixels) if pixels.shape[2] == 4 else np.array(pixels, order="C")
        height, width = rgb.shape[:2]
        sizes = [(max(1, int(width // step)), max(1, int(height // step))) for step in steps]
        self._images: list[NDArray[np.uint8]] | None = [rgb, *(area_resize(rgb, Size(*size)) for size in sizes[1:])]
        self.info = SlideInfo(levels_of(sizes), mpp, objective, vendor="array", backend="array")

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        images = self._images
        if images is None:
            raise SlideError("slide is closed")
        box = level_box(self.info.levels[level], x, y, width, height)
        image, inside = white(width, height), box.clipped(self.info.levels[level].size)
        if inside:
            to_row, to_column = inside.y - box.y, inside.x - box.x
            found = images[level][inside.y : inside.bottom, inside.x : inside.right]
            image[to_row : to_row + inside.height, to_column : to_column + inside.width] = found
        return image

    def close(self) -> None:
        """Release the pixels."""
        self._images = None
