"""A cohort before and after stain normalisation: a few patches of each slide, as they are and as they were embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_EDGE, _GAP, _HEAD, _ABOVE = 14, 16, 30, 24
_INK, _MUTED, _PAPER = (29, 33, 39), (90, 97, 107), (255, 255, 255)
_FONT = str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@dataclass(frozen=True, eq=False)
class StainedSlide:
    """One row: patches of a slide side by side, uint8 (h, w, 3), before and after; why they are equal, "" if not."""

    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    kept: str = ""


def stain_sheet(slides: Sequence[StainedSlide], title: str) -> Image.Image:
    """One row per slide, before on the left, after on the right; all pictures are of one size."""
    height, width = slides[0].before.shape[:2] if slides else (0, 320)
    across = 2 * _EDGE + 2 * width + _GAP
    canvas = Image.new("RGB", (across, 2 * _EDGE + _HEAD + len(slides) * (height + _ABOVE)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    head, small = ImageFont.truetype(_FONT, 15), ImageFont.truetype(_FONT, 13)
    right = _EDGE + width + _GAP
    draw.text((_EDGE, _EDGE), "as scanned", fill=_INK, font=head)
    draw.text((right, _EDGE), f"as embedded: {title}", fill=_INK, font=head)
    for number, slide in enumerate(slides):
        words = _EDGE + _HEAD + number * (height + _ABOVE) + 3
        top = words + _ABOVE - 3
        canvas.paste(Image.fromarray(slide.before), (_EDGE, top))
        canvas.paste(Image.fromarray(slide.after), (right, top))
        draw.text((_EDGE, words), slide.name, fill=_MUTED, font=small)
        if slide.kept:
            draw.text((right, words), f"kept: {slide.kept}", fill=_MUTED, font=small)
    return canvas
