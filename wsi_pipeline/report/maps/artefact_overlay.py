"""Where the artefacts of a slide are: patches beyond a limit, by kind, over the thumbnail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsi_pipeline.geometry import Size

COLOURS = ((213, 94, 0), (0, 114, 178), (240, 228, 66), (0, 158, 115))
"""Out of focus, pen, fold, bubble or glass edge: in the order of the table of measures (Okabe and Ito's palette)."""
OPACITY = 0.55


def draw_artefacts(
    thumbnail: NDArray[np.uint8], slide: Size, coords: NDArray[np.int64], side: int, kind: NDArray[np.integer]
) -> Image.Image:
    """The thumbnail uint8 (h, w, 3) with the patches coloured by kind.

    coords, side   top-left corners int64 (N, 2) and side of the patches, level-0 pixels
    kind           (N,): position in COLOURS, or -1 for none
    """
    image = Image.fromarray(thumbnail).convert("RGB")
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    scale = np.array([image.width / slide.width, image.height / slide.height])
    for corner, index in zip(coords, kind, strict=True):
        if index >= 0:
            first, last = corner * scale, (corner + side) * scale
            colour = (*COLOURS[int(index) % len(COLOURS)], round(255 * OPACITY))
            draw.rectangle([*np.floor(first), *np.ceil(last)], fill=colour)
    image.paste(layer, (0, 0), layer)
    return image
