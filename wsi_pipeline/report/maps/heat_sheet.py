"""The patches a model looked at most and least, as one picture to be read at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsi_pipeline.report.maps.heatmaps import share_words

EACH = 8
"""Patches in either row."""

_SIDE, _GAP, _EDGE, _HEAD, _UNDER = 144, 8, 14, 30, 22
_INK, _MUTED, _PAPER = (29, 33, 39), (90, 97, 107), (255, 255, 255)
_FONT = str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def strongest_and_weakest(values: NDArray[np.floating], each: int = EACH) -> tuple[list[int], list[int]]:
    """Rows of the `each` largest values, largest first, and of the smallest, smallest first; no row in both.

    Of equal values the first row goes first. With fewer than 2 * `each` patches both rows are shorter.
    """
    order = np.argsort(-np.asarray(values, np.float64), kind="stable").tolist()
    half = (len(order) + 1) // 2
    return order[: min(each, half)], order[half:][::-1][: min(each, len(order) - half)]


def draw_attention_sheet(
    values: NDArray[np.floating],
    strong: Sequence[int],
    weak: Sequence[int],
    images: Mapping[int, NDArray[np.uint8]],
    title: str,
) -> Image.Image:
    """Two rows of patches with their attention as a multiple of an even share.

    values   attention of all patches of the slide (N,), summing to 1
    images   row -> uint8 (P, P, 3), for every row of `strong` and `weak`
    """
    across = 2 * _EDGE + EACH * _SIDE + (EACH - 1) * _GAP
    down = _HEAD + _SIDE + _UNDER
    rows = [(f"strongest attention · {title}", strong), ("weakest attention", weak)]
    canvas = Image.new("RGB", (across, _EDGE + down * len(rows)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    head, small = ImageFont.truetype(_FONT, 15), ImageFont.truetype(_FONT, 13)
    for number, (words, chosen) in enumerate(rows):
        top = _EDGE // 2 + number * down
        draw.text((_EDGE, top + _HEAD / 2), words, fill=_INK, font=head, anchor="lm")
        for place, row in enumerate(chosen):
            left = _EDGE + place * (_SIDE + _GAP)
            patch = Image.fromarray(images[row]).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            canvas.paste(patch, (left, top + _HEAD))
            middle = (left + _SIDE / 2, top + _HEAD + _SIDE + _UNDER / 2)
            draw.text(middle, share_words(float(values[row]), len(values)), fill=_MUTED, font=small, anchor="mm")
    return canvas
