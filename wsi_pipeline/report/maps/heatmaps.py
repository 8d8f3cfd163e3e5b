"""Attention heatmap over a picture of the slide: pixel-exact, averaged where patches overlap, coloured by percentile.

Attention sums to 1 over the patches of a slide and is often concentrated in a few of them. Colour therefore shows a
patch's percentile within its slide. The colour bar gives the attention at both ends and in the middle as a multiple of
uniform attention (1 / number of patches); values near 1 at both ends mean that the patches differ little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib import colormaps, get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps.heat import FieldCells, check_patches, field_cells, percentiles

COLOUR_MAP = "viridis"
"""Perceptually uniform, safe for colour-blind readers, with hues that common stains do not have."""
SIGNED_MAP = "PuOr_r"
"""Orange: for the class, purple: against it; safe for colour-blind readers."""
ALPHA = 0.6

_MIN_WIDTH = 300
_BAND_ROWS, _BLEND_ROWS = 512, 16
_GREY = np.array([0.299, 0.587, 0.114])
_FONT = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_BoxPx: TypeAlias = tuple[int, int, int, int]
_Font: TypeAlias = ImageFont.FreeTypeFont
_Painter: TypeAlias = Callable[[Image.Image, _BoxPx, _Font], None]
_INK, _PAPER = (38, 42, 48), (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Heat:
    """A heatmap layer: one value per patch, and its colouring.

    coords        int64 (N, 2), level-0 top-left (x, y); patch_level0: side of a patch, level-0 pixels
    unit          float64 (N,), positions on the colour map, 0 to 1
    labels        text at both ends and in the middle of the colour bar
    label         title of the colour bar
    signed        diverging colour map with opacity 0 in the middle
    """

    coords: NDArray[np.int64]
    patch_level0: int
    unit: NDArray[np.float64]
    labels: tuple[str, str, str]
    label: str
    signed: bool = False

    @classmethod
    def of_attention(
        cls, coords: NDArray[np.int64], patch_level0: int, values: NDArray[np.floating], label: str = "attention"
    ) -> Heat:
        """Coloured by percentile. Raises WsiPipelineError if shapes do not match or a value is not finite."""
        check_patches(coords, patch_level0, values)
        if not len(values):
            return cls(coords, patch_level0, np.zeros(0), ("", "", ""), label)
        shares = np.quantile(values, [0, 0.5, 1])
        low, middle, high = (share_words(float(share), len(values)) for share in shares)
        if low == high:  # nearly even attention looks strong in colours by rank, so the labels must tell
            low, middle, high = (f"{share * len(values):.4f}×" for share in shares)
        labels = (f"weakest {low}", f"median {middle}", f"strongest {high}")
        return cls(coords, patch_level0, percentiles(values) / 100, labels, label)

    @classmethod
    def of_contribution(
        cls, coords: NDArray[np.int64], patch_level0: int, values: NDArray[np.floating], label: str
    ) -> Heat:
        """Coloured by value, symmetric about 0, up to the 99th percentile of |value|. Raises as `of_attention`."""
        check_patches(coords, patch_level0, values)
        end = float(np.quantile(np.abs(values), 0.99)) if len(values) else 0.0
        unit = np.clip(0.5 + values.astype(np.float64) / (2 * end), 0, 1) if end > 0 else np.full(len(values), 0.5)
        return cls(coords, patch_level0, unit, (f"against {-end:.2g}", "0", f"for {end:+.2g}"), label, signed=True)


def draw_heat(thumbnail: NDArray[np.uint8], slide_size: Size, heat: Heat, alpha: float = ALPHA) -> Image.Image:
    """Overlay a heatmap on a thumbnail and add a colour bar below; the thumbnail's pixels keep their place.

    thumbnail   uint8 (h, w, 3), spans the whole slide of `slide_size` level-0 pixels
    alpha       opacity of the heatmap on patches, 0 to 1

    The thumbnail under the heatmap is grey, so that colour shows the value only. Without patches the thumbnail is
    returned with a note.
    """
    if len(heat.coords) == 0:
        return _with_strip(thumbnail, lambda canvas, box, font: _note(canvas, box, font, "no patches"))
    heated = blend_heat(thumbnail, slide_size, heat, alpha)
    return _with_strip(heated, lambda canvas, box, font: _colour_bar(canvas, box, font, heat))


def blend_heat(picture: NDArray[np.uint8], slide_size: Size, heat: Heat, alpha: float = ALPHA) -> NDArray[np.uint8]:
    """The picture uint8 (h, w, 3) of the whole slide with the heatmap overlaid, in bands of rows to limit memory.

    Raises WsiPipelineError for a picture of another shape or type.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise WsiPipelineError(f"thumbnail must be uint8 (h, w, 3), got {picture.dtype} {picture.shape}")
    out = picture.copy()
    for first in range(0, len(picture) if len(heat.coords) else 0, _BAND_ROWS):
        rows = (first, min(first + _BAND_ROWS, len(picture)))
        cells = field_cells(picture.shape, slide_size, heat.coords, heat.patch_level0, heat.unit, rows)
        _blend(out[rows[0] : rows[1]], cells, alpha, heat.signed)
    return out


def share_words(value: float, n: int) -> str:
    """Attention as a multiple of uniform attention over n patches: `<0.01×`, `0.12×`, `1.3×`, `41×`."""
    times = value * n
    if times < 0.01:
        return "<0.01×"
    return f"{times:.0f}×" if times >= 9.95 else f"{times:.1f}×" if times >= 0.995 else f"{times:.2f}×"


def _blend(picture: NDArray[np.uint8], cells: FieldCells, alpha: float, signed: bool) -> None:
    """Lay the heat over a band (h, w, 3) in place, one row of cells after another, where there are patches.

    Rows of one cell share their colours, and what they take fits in the processor's cache.
    """
    unit = cells.mean
    opacity = cells.cover * alpha * (np.sqrt(np.abs(2 * unit - 1)) if signed else 1.0)
    colours = np.ascontiguousarray(_colours(signed)[_places(unit)].transpose(2, 0, 1))
    starts = np.flatnonzero(np.diff(cells.row, prepend=-1)).tolist()
    for first, end in zip(starts, [*starts[1:], len(picture)], strict=True):
        cell = cells.row[first]
        covered = np.flatnonzero(cells.cover[cell][cells.column] > 0)
        if not len(covered):
            continue
        of_pixel = cells.column[covered]
        together = covered[-1] - covered[0] + 1 == len(covered)
        columns = slice(int(covered[0]), int(covered[-1]) + 1) if together else covered
        heat, share = colours[:, cell][:, of_pixel][:, None], opacity[cell][of_pixel]
        for top in range(first, end, _BLEND_ROWS):
            part = picture[top : min(top + _BLEND_ROWS, end)]
            grey = part[:, columns] @ _GREY
            mixed = heat - grey
            mixed *= share
            mixed += grey
            part[:, columns] = np.rint(mixed, out=mixed).transpose(1, 2, 0)


def _places(unit: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Positions on the colour map of 256 colours."""
    return np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)


@cache
def _colours(signed: bool) -> NDArray[np.float64]:
    return np.asarray(colormaps[SIGNED_MAP if signed else COLOUR_MAP](np.arange(256))[:, :3] * 255.0)


def _with_strip(picture: NDArray[np.uint8], paint: _Painter) -> Image.Image:
    """The picture with a white strip below for `paint`; its pixels keep their place."""
    height, width = picture.shape[:2]
    canvas_width = max(width, _MIN_WIDTH)
    font_px = max(11, round(canvas_width * 0.026))
    canvas = Image.new("RGB", (canvas_width, height + 4 * font_px), _PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    box = (font_px, height + font_px, canvas_width - font_px, height + 3 * font_px)
    paint(canvas, box, _font(font_px))
    return canvas


@cache
def _font(font_px: int) -> _Font:
    return ImageFont.truetype(str(_FONT), font_px)


def _note(canvas: Image.Image, box: _BoxPx, font: _Font, text: str) -> None:
    ImageDraw.Draw(canvas).text((box[0], (box[1] + box[3]) / 2), text, fill=_INK, font=font, anchor="lm")


def _colour_bar(canvas: Image.Image, box: _BoxPx, font: _Font, heat: Heat) -> None:
    """`label [gradient]`, with tick labels under both ends and the middle of the gradient."""
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = box
    line = (bottom - top) // 2
    start = round(left + font.getlength(heat.label) + 0.8 * line)
    draw.text((left, top + line / 2), heat.label, fill=_INK, font=font, anchor="lm")
    flat = len(heat.unit) > 0 and bool((heat.unit == heat.unit[0]).all())
    across = np.arange(max(0, right - start))
    places = np.full(len(across), 127) if flat else np.rint(255 * across / max(1, right - start - 1)).astype(int)
    colours = _colours(heat.signed).round().astype(np.uint8)[places]
    if len(colours):
        high, low = int(top + 0.1 * line), int(top + 0.8 * line)
        canvas.paste(Image.fromarray(np.repeat(colours[None], low - high + 1, axis=0)), (start, high))
    for words, at, anchor in _placed(heat.labels, start, right, font):
        draw.text((at, bottom), words, fill=_INK, font=font, anchor=anchor)


def _placed(labels: Sequence[str], start: float, end: float, font: _Font) -> list[tuple[str, float, str]]:
    """The tick labels under the bar: both ends, and the middle if there is room."""
    places = [(labels[0], start, "ls"), (labels[1], (start + end) / 2, "ms"), (labels[2], end, "rs")]
    taken = sum(font.getlength(words) for words in labels) + 2 * font.size
    return places if taken <= end - start else [places[0], places[2]]
