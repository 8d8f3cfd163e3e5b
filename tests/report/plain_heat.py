"""Heatmaps by plain arithmetic on every pixel: what the fast drawing must equal to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps.heat import field_cells
from wsi_pipeline.report.maps.heatmaps import Heat, _colours

_BAND_ROWS = 512
Floats = NDArray[np.float64]


def plain_field(
    shape: tuple[int, ...], size: Size, coords: NDArray[np.int64], side: int, values: Floats, rows: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Mean and coverage (h, w) of some rows, with steps scattered on a whole band and summed along both axes."""
    (height, width), (first, end) = shape[:2], rows
    down, across = height / size.height, width / size.width
    near = (coords[:, 1] * down < end) & ((coords[:, 1] + side) * down > first)
    coords, values = coords[near], values[near]
    if not len(coords):
        return np.zeros((end - first, width)), np.zeros((end - first, width))
    column, column_step = _edges(coords[:, 0] * across, side * across, width)
    row, row_step = _edges(coords[:, 1] * down - first, side * down, end - first)
    where = row[:, None, :] * (width + 2) + column[None, :, :]
    sums = []
    for each in (np.ones(len(coords)), values - values.min()):
        step = row_step[:, None, :] * column_step[None, :, :] * each
        flat = np.bincount(where.ravel(), weights=step.ravel(), minlength=(end - first + 2) * (width + 2))
        summed = flat.reshape(end - first + 2, width + 2).cumsum(axis=0).cumsum(axis=1)
        sums.append(summed[: end - first, :width])
    weight, total = sums
    touched = weight > 1e-6
    mean = np.divide(total, weight, out=np.zeros_like(total), where=touched)
    return np.where(touched, mean + values.min(), 0.0), np.where(touched, np.minimum(weight, 1.0), 0.0)


def plain_blend(picture: NDArray[np.uint8], size: Size, heat: Heat, alpha: float) -> NDArray[np.uint8]:
    """`blend_heat`, every pixel of a band at once."""
    out = picture.copy()
    for first in range(0, len(picture) if len(heat.coords) else 0, _BAND_ROWS):
        rows = (first, min(first + _BAND_ROWS, len(picture)))
        unit, cover = plain_field(picture.shape, size, heat.coords, heat.patch_level0, heat.unit, rows)
        opacity = cover * alpha * (np.sqrt(np.abs(2 * unit - 1)) if heat.signed else 1.0)
        part = picture[rows[0] : rows[1]]
        colours = _colours(heat.signed)[np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)]
        grey = part @ np.array([0.299, 0.587, 0.114])
        base = np.where((cover > 0)[..., None], grey[..., None], part)
        out[rows[0] : rows[1]] = np.rint(base + (colours - base) * opacity[..., None]).astype(np.uint8)
    return out


def plain_gradient(canvas: Image.Image, start: int, right: int, rows: tuple[float, float], heat: Heat) -> None:
    """The gradient of the colour bar, a line for each column."""
    draw, colours = ImageDraw.Draw(canvas), _colours(heat.signed).round().astype(int)
    flat = len(heat.unit) > 0 and bool((heat.unit == heat.unit[0]).all())
    for x in range(start, right):
        place = 127 if flat else round(255 * (x - start) / max(1, right - start - 1))
        red, green, blue = colours[place].tolist()
        draw.line([(x, rows[0]), (x, rows[1])], fill=(red, green, blue))


def _edges(start: Floats, length: float, limit: int) -> tuple[NDArray[np.int64], Floats]:
    edges = np.clip(np.stack([start, start + length]), 0.0, float(limit))
    first = np.floor(edges).astype(np.int64)
    part = edges - first
    step = np.concatenate([1.0 - part, part]) * np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    return np.concatenate([first, first + 1]), step


def patch_field(*arguments: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The cells of `field_cells` on the pixels: mean value and covered fraction, (h, w)."""
    cells = field_cells(*arguments)
    return cells.spread(cells.mean), cells.spread(cells.cover)
