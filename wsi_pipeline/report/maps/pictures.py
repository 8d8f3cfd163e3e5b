"""Small pictures for the report: shrink, encode, embed."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.images.png import decode_png

BUDGET = 30_000_000
"""Total size of the encoded slide pictures, bytes; as base64 in the page they take a third more."""
_SIDES = (800, 560, 400, 300, 240, 200)
_METHOD = 2
"""Effort of libwebp, 0 to 6. 4 at quality 80 takes 2.3 times as long, is 6 % smaller and at most 0.25 dB closer."""
_JPEG_SIDE, _JPEG_QUALITY = 560, 80
"""Pictures of at least this side are JPEG: a sixth of the time to encode, a fifth larger, at most 1.3 dB further from
the original. In large cohorts, whose pictures are smaller, the size of the page counts more."""
_SHEET_PX, _SHEET_BYTES = 900, 45_000.0
_MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


def shrink_png(image: Image.Image | NDArray[np.uint8] | bytes, max_px: int = 640, quality: int = 81) -> bytes:
    """Encode a picture for the report as WebP, large ones as JPEG, at most `max_px` on its longer side, never enlarged.

    image    PIL image, uint8 (h, w, 3), or encoded bytes; transparent areas become white
    quality  WebP quality 1 to 100; text and thin contours stay readable at 81
    """
    opened = _opened(image)
    scale = min(1.0, max_px / max(opened.size))
    size = (max(1, round(opened.width * scale)), max(1, round(opened.height * scale)))
    small = opened if size == opened.size else opened.resize(size, Image.Resampling.HAMMING, reducing_gap=3.0)
    out = io.BytesIO()
    if max(size) >= _JPEG_SIDE:
        small.save(out, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    else:
        small.save(out, "WEBP", quality=quality, method=_METHOD)
    return out.getvalue()


@dataclass(frozen=True)
class PicturePlan:
    """Which pictures a report contains, chosen to bound its size for any number of slides.

    side     longest side of a picture, pixels
    slides   number of slides with pictures
    models   number of models, best first, whose attention is shown
    sheet    longest side of a patch sheet, pixels; best model only; 0: none
    """

    side: int
    slides: int
    models: int
    sheet: int


def plan_pictures(n_slides: int, n_models: int, n_other: int = 0) -> PicturePlan:
    """The largest pictures of `n_slides` slides that stay within BUDGET bytes.

    Each slide has a tissue overlay, a thumbnail, an attention map per model, and `n_other` more pictures. To fit the
    budget, pictures shrink first; then patch sheets are dropped, then all models but the best, and finally (beyond
    about two thousand slides) the pictures of some slides.
    """
    sheets = min(1, n_models)
    for models, sheet, least in ((n_models, sheets, 400), (n_models, 0, 400), (min(1, n_models), 0, 200)):
        each = 2 + models + n_other
        for side in (side for side in _SIDES if side >= least):
            if n_slides * (each * _bytes(side) + sheet * _SHEET_BYTES) <= BUDGET:
                return PicturePlan(side, n_slides, models, _SHEET_PX * sheet)
    fits = int(BUDGET / ((2 + min(1, n_models) + n_other) * _bytes(_SIDES[-1])))
    return PicturePlan(_SIDES[-1], min(n_slides, fits), min(1, n_models), 0)


def _bytes(side: int) -> float:
    """Upper estimate of the average size of a tissue WebP; small pictures have more detail per pixel."""
    return 1200.0 + 0.17 * 0.75 * side**2


def data_uri(encoded: bytes) -> str:
    """A picture as a `data:` URI. Raises WsiPipelineError if the bytes are not PNG, JPEG or WebP."""
    for magic, mime in _MAGIC.items():
        if encoded.startswith(magic):
            return f"data:{mime};base64,{base64.b64encode(encoded).decode('ascii')}"
    raise WsiPipelineError(f"a report picture must be PNG, JPEG or WebP, got bytes starting {encoded[:4]!r}")


def embedded(encoded: bytes) -> dict[str, Any]:
    """What an <img> of the page needs: `uri`, and `width` and `height` in pixels. Raises as `data_uri`."""
    width, height = picture_size(encoded)
    return {"uri": data_uri(encoded), "width": width, "height": height}


def picture_size(encoded: bytes) -> tuple[int, int]:
    """Width and height in pixels; reads only the header."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.size


def _opened(image: Image.Image | NDArray[np.uint8] | bytes) -> Image.Image:
    if isinstance(image, bytes):
        pixels = decode_png(image)
        image = Image.open(io.BytesIO(image)) if pixels is None else Image.fromarray(pixels)
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
