"""Tiling overlay of a slide: thumbnail, tissue outline, patch grid, artefacts, scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from shapely.geometry import Polygon

from wsi_pipeline.geometry import Size
from wsi_pipeline.images.png import encode_png
from wsi_pipeline.report.maps.artefact_overlay import draw_artefacts, draw_legend
from wsi_pipeline.store.tables.quality_columns import FlaggedPatches
from wsi_pipeline.system.atomic import write_bytes
from wsi_pipeline.tissue.contours import tissue_polygons
from wsi_pipeline.tissue.mask import TissueMask

OUTLINE = (0, 121, 107)
HALO = (255, 255, 255)
GRID = (38, 50, 130)
GRID_OPACITY, TINT = 0.40, 0.10
"""Opacity of patch borders, and of the tint of tiled areas, which remains visible when the grid is too fine to draw."""
FAINT_CELL, CLEAR_CELL = 3.0, 14.0
"""Patch widths on the picture, pixels, from which borders fade in and are fully drawn."""
BAR_PART = 0.2
"""The scale bar is the longest round length within this fraction of the picture's width."""
MIN_BAR_PX = 120
"""Narrower pictures have no room for a scale bar."""


def draw_overlay(
    thumbnail: NDArray[np.uint8],
    slide_size: Size,
    polygons: Sequence[Polygon],
    coords: NDArray[np.int64] | None,
    patch_size_level0: int,
    *,
    mpp: float | None = None,
    flagged: FlaggedPatches | None = None,
    max_px: int = 1600,
) -> Image.Image:
    """Draw tissue outlines and patches over a thumbnail uint8 (h, w, 3) that spans the slide.

    polygons            tissue outlines in level-0 pixels
    coords              level-0 top-left corners int64 (N, 2) of the patches, or None before tiling
    patch_size_level0   width of a patch in level-0 pixels
    mpp                 micrometres per level-0 pixel, for the scale bar; None leaves it out
    flagged             patches beyond a limit of quality, coloured by kind with a legend
    max_px              longest side of the result; thumbnails are shrunk to it and never enlarged
    """
    image = Image.fromarray(thumbnail)
    image.thumbnail((max_px, max_px), Image.Resampling.BOX)
    scale = (image.width / slide_size.width, image.height / slide_size.height)
    if coords is not None and len(coords):
        image = _with_grid(image, np.asarray(coords, dtype=np.float64), patch_size_level0, scale)
    if flagged is not None:
        draw_artefacts(image, slide_size, patch_size_level0, flagged)
    if polygons:
        image = _with_outlines(image, polygons, scale)
    if mpp is not None:
        _draw_scale_bar(image, mpp / scale[0])
    if flagged is not None:
        draw_legend(image, flagged)
    return image


def _with_grid(image: Image.Image, corners: NDArray[np.float64], patch: int, scale: tuple[float, float]) -> Image.Image:
    """Patches as a faint tint with thin dark borders, edged with white so that they also show on dark tissue."""
    limits = np.array([image.width, image.height])
    first = np.clip(np.rint(corners * scale), 0, limits - 1).astype(np.intp)
    last = np.clip(np.rint((corners + patch) * scale), 0, limits - 1).astype(np.intp)
    cell = patch * min(scale)
    opacity = GRID_OPACITY * float(np.clip((cell - FAINT_CELL) / (CLEAR_CELL - FAINT_CELL), 0, 1))
    inside, border = _covered(first, last, image.height, image.width)
    shine = np.zeros_like(border)
    shine[1:, 1:] = border[:-1, :-1] & ~border[1:, 1:]
    for alpha, where, colour in ((TINT, inside, GRID), (opacity, shine, HALO), (opacity, border, GRID)):
        image.paste(colour, mask=Image.fromarray(where * np.uint8(round(255 * alpha))))
    return image


def _covered(
    first: NDArray[np.intp], last: NDArray[np.intp], height: int, width: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels (height, width) inside and on the border of rectangles from `first` to `last` (N, 2), both inclusive.

    Uses difference arrays and running sums, so that the time hardly depends on N.
    """
    (left, top), (right, bottom) = first.T, last.T
    area, level, upright = (np.zeros((height + 1, width + 1), dtype=np.int32) for _ in range(3))
    for row, column, sign in ((top, left, 1), (top, right + 1, -1), (bottom + 1, left, -1), (bottom + 1, right + 1, 1)):
        np.add.at(area, (row, column), sign)
    for row in (top, bottom):
        np.add.at(level, (row, left), 1)
        np.add.at(level, (row, right + 1), -1)
    for column in (left, right):
        np.add.at(upright, (top, column), 1)
        np.add.at(upright, (bottom + 1, column), -1)
    inside = area.cumsum(axis=0).cumsum(axis=1) > 0
    border = (level.cumsum(axis=1) > 0) | (upright.cumsum(axis=0) > 0)
    return inside[:height, :width], border[:height, :width]


def _with_outlines(image: Image.Image, polygons: Sequence[Polygon], scale: tuple[float, float]) -> Image.Image:
    """Coloured outlines with a white halo, visible on any stain; drawn at twice the size and shrunk to be smooth."""
    width = max(2, round(max(image.size) / 500))
    size = (2 * image.width, 2 * image.height)
    line, halo = Image.new("L", size), Image.new("L", size)
    factors = (2 * scale[0], 2 * scale[1])
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            points = (np.asarray(ring.coords)[:, :2] * factors).ravel().tolist()
            ImageDraw.Draw(halo).line(points, fill=150, width=2 * width + 4, joint="curve")
            ImageDraw.Draw(line).line(points, fill=255, width=2 * width, joint="curve")
    for mask, colour in ((halo, HALO), (line, OUTLINE)):
        image.paste(colour, mask=mask.reduce(2))
    return image


def _draw_scale_bar(image: Image.Image, um_per_px: float) -> None:
    """A scale bar of round length with its label on a pale plate, bottom left."""
    if image.width < MIN_BAR_PX or image.height < MIN_BAR_PX / 2:
        return
    length = _round_length(BAR_PART * image.width * um_per_px)
    label = f"{length / 1000:g} mm" if length >= 100 else f"{length:g} um"
    font = ImageFont.load_default(size=max(12, round(image.width / 75)))
    bar, margin = length / um_per_px, max(6, round(image.width / 120))
    _, _, text_width, text_height = font.getbbox(label)
    thick = max(3, round(image.width / 400))
    plate_width, plate_height = max(bar, text_width) + 2 * margin, text_height + thick + 2.5 * margin
    x, y = margin, image.height - margin - plate_height
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rounded_rectangle([x, y, x + plate_width, y + plate_height], radius=margin * 0.7, fill=(255, 255, 255, 215))
    middle = x + plate_width / 2
    draw.text((middle - text_width / 2, y + margin * 0.7), label, font=font, fill=(25, 25, 25))
    foot = y + plate_height - margin
    draw.rectangle([middle - bar / 2, foot - thick, middle + bar / 2, foot], fill=(25, 25, 25))


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def write_overlay(
    path: Path,
    thumbnail: NDArray[np.uint8],
    mask: TissueMask,
    coords: NDArray[np.int64] | None,
    patch_level0: int,
    flagged: FlaggedPatches | None = None,
) -> None:
    """Write thumbnail, contours and (if given) the patch grid and the artefacts of a slide to a PNG file."""
    polygons = tissue_polygons(mask)
    image = draw_overlay(thumbnail, mask.slide_size, polygons, coords, patch_level0, mpp=mask.mpp, flagged=flagged)
    write_bytes(path, encode_png(np.asarray(image), {}))
