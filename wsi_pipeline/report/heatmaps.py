"""Attention over the thumbnail: exact in place, averaged where patches overlap, with a bar of raw values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib import colormaps, get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size

COLOUR_MAP = "viridis"
"""Perceptually uniform, readable with every colour vision, and of hues that no common stain has."""

_PERCENTILES = (1.0, 99.0)
_MIN_WIDTH = 300
_FONT = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_BoxPx: TypeAlias = tuple[int, int, int, int]
_Font: TypeAlias = ImageFont.FreeTypeFont
_Painter: TypeAlias = Callable[[ImageDraw.ImageDraw, _BoxPx, _Font], None]
_INK, _PAPER = (38, 42, 48), (255, 255, 255)


@dataclass(frozen=True)
class ValueScale:
    """The raw values at the two ends of the colour map; `clipped` where values lie beyond an end."""

    low: float
    high: float
    clipped_low: bool = False
    clipped_high: bool = False

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> ValueScale:
        """1st to 99th percentile of `values` (N,), or their range where those coincide. N must be >= 1."""
        low, high = (float(end) for end in np.percentile(values, _PERCENTILES))
        smallest, largest = float(values.min()), float(values.max())
        if not low < high:
            low, high = smallest, largest
        return cls(low, high, smallest < low, largest > high)

    def unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values as positions on the colour map, 0 to 1; a constant field lies in the middle."""
        if not self.low < self.high:
            return np.full_like(values, 0.5)
        return np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)


def draw_heatmap(
    thumbnail: NDArray[np.uint8],
    slide_size: Size,
    coords: NDArray[np.int64],
    patch_size_level0: int,
    values: NDArray[np.floating],
    *,
    alpha: float = 0.6,
    label: str = "attention",
) -> Image.Image:
    """Lay one value per patch over a thumbnail; the thumbnail's pixels keep their place, a bar is added below.

    thumbnail          uint8 (h, w, 3), spans the whole slide of `slide_size` level-0 pixels
    coords             int64 (N, 2), level-0 top-left (x, y) of each patch
    patch_size_level0  patch width and height in level-0 pixels
    values             float (N,), row for row with `coords`
    alpha              opacity of the heat where patches lie, 0 to 1

    Colours run from the 1st to the 99th percentile of the slide's own values. Under the heat the thumbnail
    is shown grey, so that colour means value alone. Without patches the bare thumbnail is returned
    with a note. Raises WsiPipelineError when shapes disagree or a value is not finite.
    """
    _check(thumbnail, coords, patch_size_level0, values)
    if len(coords) == 0:
        return _with_strip(thumbnail, lambda draw, box, font: _note(draw, box, font, f"no patches, no {label}"))
    scale = ValueScale.of(values)
    mean, coverage = patch_field(thumbnail.shape[:2], slide_size, coords, patch_size_level0, values)
    heated = _blend(thumbnail, scale.unit(mean), coverage * alpha)
    return _with_strip(heated, lambda draw, box, font: _colour_bar(draw, box, font, scale, label))


def patch_field(
    shape: tuple[int, ...],
    slide_size: Size,
    coords: NDArray[np.int64],
    patch_size_level0: int,
    values: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean value and covered fraction of each thumbnail pixel, both float64 (h, w), by exact area.

    A pixel that several patches share holds their mean, weighted by the area of the pixel each covers;
    a pixel that no patch touches holds 0 and has coverage 0. Patches are clipped to the slide.
    """
    height, width = int(shape[0]), int(shape[1])
    steps_x = _edge_steps(coords[:, 0], patch_size_level0, width / slide_size.width, width)
    steps_y = _edge_steps(coords[:, 1], patch_size_level0, height / slide_size.height, height)
    offset = float(values.min())
    weight = _accumulate(steps_x, steps_y, np.ones(len(coords)), (height, width))
    total = _accumulate(steps_x, steps_y, values.astype(np.float64) - offset, (height, width))
    touched = weight > 1e-6
    mean = np.divide(total, weight, out=np.zeros_like(total), where=touched)
    return np.where(touched, mean + offset, 0.0), np.where(touched, np.minimum(weight, 1.0), 0.0)


def _edge_steps(
    start: NDArray[np.int64], length: int, scale: float, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where and by how much a box's coverage changes along one axis: indices and steps, both (4, N).

    Their running sum is the covered fraction of each pixel, fractional at both edges: an edge at
    position t steps by 1 - frac(t) in pixel floor(t) and by frac(t) in the next.
    """
    edges = np.stack([start, start + length]) * scale
    edges = np.clip(edges, 0.0, float(limit))
    first = np.floor(edges).astype(np.int64)
    part = edges - first
    index = np.concatenate([first, first + 1])
    step = np.concatenate([1.0 - part, part]) * np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    return index, step


def _accumulate(
    steps_x: tuple[NDArray[np.int64], NDArray[np.float64]],
    steps_y: tuple[NDArray[np.int64], NDArray[np.float64]],
    values: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Sum over boxes of value x covered fraction, float64 (h, w): steps scattered once, then summed along both axes."""
    height, width = shape
    (column, column_step), (row, row_step) = steps_x, steps_y
    where = row[:, None, :] * (width + 2) + column[None, :, :]
    step = row_step[:, None, :] * column_step[None, :, :] * values
    flat = np.bincount(where.ravel(), weights=step.ravel(), minlength=(height + 2) * (width + 2))
    summed = flat.reshape(height + 2, width + 2).cumsum(axis=0).cumsum(axis=1)
    return summed[:height, :width]


def _blend(thumbnail: NDArray[np.uint8], unit: NDArray[np.float64], opacity: NDArray[np.float64]) -> NDArray[np.uint8]:
    colours = colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255.0
    heat = colours[np.rint(unit * 255).astype(np.uint8)]
    grey = thumbnail @ np.array([0.299, 0.587, 0.114])
    base = np.where((opacity > 0)[..., None], grey[..., None], thumbnail)
    mixed = base + (heat - base) * opacity[..., None]
    return np.rint(mixed).astype(np.uint8)


def _check(
    thumbnail: NDArray[np.uint8], coords: NDArray[np.int64], patch_size_level0: int, values: NDArray[np.floating]
) -> None:
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        raise WsiPipelineError(f"thumbnail must be uint8 (h, w, 3), got {thumbnail.dtype} {thumbnail.shape}")
    if coords.ndim != 2 or coords.shape[1] != 2 or values.shape != (len(coords),):
        raise WsiPipelineError(f"coords must be (N, 2) and values (N,), got {coords.shape} and {values.shape}")
    if patch_size_level0 < 1:
        raise WsiPipelineError(f"patch_size_level0 must be >= 1, got {patch_size_level0}")
    if not np.all(np.isfinite(values)):
        raise WsiPipelineError(f"heatmap values must be finite, got {int(np.sum(~np.isfinite(values)))} that are not")


def _with_strip(picture: NDArray[np.uint8], paint: _Painter) -> Image.Image:
    """The picture with its top-left corner in place and a white strip below for `paint`."""
    height, width = picture.shape[:2]
    canvas_width = max(width, _MIN_WIDTH)
    font_px = max(11, round(canvas_width * 0.038))
    canvas = Image.new("RGB", (canvas_width, height + 3 * font_px), _PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    box = (font_px, height + font_px, canvas_width - font_px, height + 2 * font_px)
    paint(ImageDraw.Draw(canvas), box, ImageFont.truetype(str(_FONT), font_px))
    return canvas


def _note(draw: ImageDraw.ImageDraw, box: _BoxPx, font: _Font, text: str) -> None:
    draw.text((box[0], (box[1] + box[3]) / 2), text, fill=_INK, font=font, anchor="lm")


def _colour_bar(draw: ImageDraw.ImageDraw, box: _BoxPx, font: _Font, scale: ValueScale, label: str) -> None:
    """`label  low [gradient] high`, on one line; the signs say where values were clipped to the ends."""
    left, top, right, bottom = box
    middle, gap = (top + bottom) / 2, bottom - top
    low = f"{'≤ ' if scale.clipped_low else ''}{scale.low:.3g}"
    high = f"{'≥ ' if scale.clipped_high else ''}{scale.high:.3g}"
    start = f"{label}   {low}"
    draw.text((left, middle), start, fill=_INK, font=font, anchor="lm")
    draw.text((right, middle), high, fill=_INK, font=font, anchor="rm")
    bar_left = round(left + font.getlength(start) + 0.6 * gap)
    bar_right = round(right - font.getlength(high) - 0.6 * gap)
    colours = (colormaps[COLOUR_MAP](np.arange(256))[:, :3] * 255).round().astype(int)
    for x in range(bar_left, bar_right):
        position = 127 if scale.low == scale.high else round(255 * (x - bar_left) / max(1, bar_right - bar_left - 1))
        red, green, blue = colours[position].tolist()
        draw.line([(x, top + 0.15 * gap), (x, bottom - 0.15 * gap)], fill=(red, green, blue))
