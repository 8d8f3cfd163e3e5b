"""Class map of a slide: each area in the colour of its class over the grey thumbnail, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps.class_areas import UNCLEAR, ClassAreas, Colour, class_colours

OPACITY = 0.5
"""Opacity of the colours over the thumbnail."""
UNCLEAR_COLOUR: Colour = (120, 120, 120)

_INK, _PAPER = (38, 42, 48), (255, 255, 255)
_FONT = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_MIN_WIDTH = 320
_Entry = tuple[Colour, str]


def draw_classes(
    thumbnail: NDArray[np.uint8],
    slide_size: Size,
    areas: ClassAreas,
    classes: Sequence[str],
    fractions: Sequence[float],
    *,
    unclear: float = 0.0,
) -> Image.Image:
    """Colour a thumbnail uint8 (h, w, 3) that spans the slide; its pixels keep their place, a legend comes below.

    fractions   fraction of patches of each class, 0 to 1, for the legend
    unclear     fraction of patches without a class

    Each pixel mixes the colours by the exact area that each class covers. The thumbnail below is grey, so that hue
    shows the class only; unclear areas are grey. Without patches the thumbnail is returned with a note.
    """
    colours = class_colours(len(classes))
    covers = [(class_cover(areas, number, thumbnail.shape, slide_size), colours[number]) for number in _present(areas)]
    grey = class_cover(areas, UNCLEAR, thumbnail.shape, slide_size)
    picture = _mix(thumbnail, [*covers, (grey, UNCLEAR_COLOUR)])
    if not areas.labels.size:
        return _with_legend(picture, [(_PAPER, "no patches")])
    rows = zip(colours, classes, fractions, strict=True)
    entries: list[_Entry] = [(colour, f"{name} {percent(fraction)}") for colour, name, fraction in rows]
    return _with_legend(picture, [*entries, (UNCLEAR_COLOUR, f"unclear {percent(unclear)}")][: None if unclear else -1])


def class_cover(areas: ClassAreas, label: int, shape: tuple[int, ...], slide_size: Size) -> NDArray[np.float64]:
    """Exact fraction, 0 to 1, of each pixel of a picture (h, w) of the slide that is covered by areas of this label."""
    if not areas.labels.size:
        return np.zeros(shape[:2])
    pixels = np.diff(areas.ys)[:, None] * np.diff(areas.xs)[None, :] * (areas.labels == label)
    total = np.zeros((len(areas.ys), len(areas.xs)))
    total[1:, 1:] = pixels.cumsum(axis=0).cumsum(axis=1)
    # The integral is linear between cell edges along either axis, so interpolation is exact.
    down = np.linspace(0, slide_size.height, shape[0] + 1)
    across = np.linspace(0, slide_size.width, shape[1] + 1)
    total = _interpolate(_interpolate(total, areas.ys, down).T, areas.xs, across).T
    part = np.diff(np.diff(total, axis=0), axis=1) * (shape[0] * shape[1] / slide_size.pixels)
    return np.clip(part, 0.0, 1.0)


def percent(fraction: float) -> str:
    """A fraction as text: `62 %`, `0.4 %`, `< 0.1 %`."""
    if 0 < fraction < 0.001:
        return "< 0.1 %"
    return f"{100 * fraction:.{0 if fraction >= 0.0995 or fraction == 0 else 1}f} %"


def _interpolate(
    values: NDArray[np.float64], at: NDArray[np.int64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rows of `values` (at positions `at`), linearly interpolated to positions `wanted`; constant beyond the ends."""
    place = np.clip(wanted, at[0], at[-1])
    above = np.clip(np.searchsorted(at, place, side="right"), 1, len(at) - 1)
    weight = ((place - at[above - 1]) / (at[above] - at[above - 1]))[:, None]
    return np.asarray(values[above - 1] * (1 - weight) + values[above] * weight)


def _present(areas: ClassAreas) -> list[int]:
    return [int(number) for number in np.unique(areas.labels) if number >= 0]


def _mix(thumbnail: NDArray[np.uint8], covers: Sequence[tuple[NDArray[np.float64], Colour]]) -> NDArray[np.uint8]:
    """The thumbnail, grey where covered, blended with the colours by the fraction of each pixel that they cover."""
    pixels = thumbnail.astype(np.float64)
    covered = np.sum([cover for cover, _ in covers], axis=0)[..., None]
    grey = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    base = pixels + np.minimum(covered, 1.0) * (grey - pixels)
    mixed = base * (1 - OPACITY * covered) + OPACITY * sum(
        cover[..., None] * np.array(colour, np.float64) for cover, colour in covers
    )
    result: NDArray[np.uint8] = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
    return result


def _with_legend(picture: NDArray[np.uint8], entries: Sequence[_Entry]) -> Image.Image:
    """The picture, with the legend on white below it in as many lines as needed; pixels keep their place."""
    height, width = picture.shape[:2]
    canvas_width = max(width, _MIN_WIDTH)
    size = max(12, round(canvas_width * 0.02))
    font = ImageFont.truetype(str(_FONT), size)
    lines = _lines(entries, font, canvas_width - 2 * size, size)
    canvas = Image.new("RGB", (canvas_width, height + round(size * (1.7 * len(lines) + 1.1))), _PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        x, middle = float(size), height + size * (1.4 + 1.7 * number)
        for colour, words in line:
            box = (x, middle - size / 2, x + size, middle + size / 2)
            draw.rectangle(box, fill=_laid_on_grey(colour), outline=colour, width=max(1, size // 8))
            draw.text((x + 1.4 * size, middle), words, fill=_INK, font=font, anchor="lm")
            x += _length(words, font, size)
    return canvas


def _lines(entries: Sequence[_Entry], font: ImageFont.FreeTypeFont, width: float, size: int) -> list[list[_Entry]]:
    lines: list[list[_Entry]] = [[]]
    used = 0.0
    for colour, words in entries:
        length = _length(words, font, size)
        if lines[-1] and used + length > width:
            lines.append([])
            used = 0.0
        lines[-1].append((colour, words))
        used += length
    return lines


def _length(words: str, font: ImageFont.FreeTypeFont, size: int) -> float:
    return 1.4 * size + font.getlength(words) + 1.6 * size


def _laid_on_grey(colour: Colour) -> Colour:
    """The colour as it looks on tissue of medium brightness, so that the legend matches the picture."""
    r, g, b = (round(OPACITY * value + (1 - OPACITY) * 190) for value in colour)
    return r, g, b
