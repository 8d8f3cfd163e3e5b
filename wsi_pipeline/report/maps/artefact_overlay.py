"""Where the artefacts of a slide are: patches beyond a limit, coloured by kind, and the legend of the colours."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsi_pipeline.geometry import Size
from wsi_pipeline.quality.measures import ARTEFACTS
from wsi_pipeline.store.tables.quality_columns import FlaggedPatches

COLOURS = ((213, 94, 0), (0, 114, 178), (240, 228, 66), (0, 158, 115))
"""Out of focus, pen, fold, bubble or glass edge: in the order of the table of measures (Okabe and Ito's palette)."""
OPACITY = 0.55
INK, PLATE = (25, 25, 25), (255, 255, 255, 215)


def draw_artefacts(image: Image.Image, slide: Size, side: int, flagged: FlaggedPatches) -> None:
    """Colour the patches of `side` level-0 pixels by kind, on an RGB picture that spans the slide."""
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    scale = np.array([image.width / slide.width, image.height / slide.height])
    for corner, kind in zip(flagged.coords, flagged.kind, strict=True):
        first, last = np.floor(corner * scale), np.ceil((corner + side) * scale)
        colour = (*COLOURS[int(kind) % len(COLOURS)], round(255 * OPACITY))
        draw.rectangle([*first, *np.maximum(first, last - 1)], fill=colour)
    image.paste(layer, (0, 0), layer)


def draw_legend(image: Image.Image, flagged: FlaggedPatches) -> None:
    """The kinds that are there and how many patches of each, on a pale plate, bottom right; nothing without any."""
    font = ImageFont.load_default(size=max(12, round(image.width / 75)))
    rows = [
        (COLOURS[kind], f"{measure.artefact}: {count}")
        for kind, (measure, count) in enumerate(zip(ARTEFACTS, flagged.counts(), strict=True))
        if count
    ]
    if not rows:
        return
    boxes = [font.getbbox(text) for _, text in rows]
    line, margin = max(box[3] for box in boxes), max(6, round(image.width / 120))
    width = max(box[2] for box in boxes) + line + 3 * margin
    height = len(rows) * line + (len(rows) + 1) * margin
    if width + margin > image.width or height + margin > image.height:
        return
    left, top = image.width - margin - width, image.height - margin - height
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rounded_rectangle([left, top, left + width, top + height], radius=margin * 0.7, fill=PLATE)
    for number, (colour, text) in enumerate(rows):
        y = top + margin + number * (line + margin)
        draw.rectangle([left + margin, y, left + margin + line, y + line], fill=colour)
        draw.text((left + 2 * margin + line, y), text, font=font, fill=INK)
