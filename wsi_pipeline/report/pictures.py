"""Small pictures for the report: shrink, encode, embed."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import WsiPipelineError

_MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


def shrink_png(image: Image.Image | NDArray[np.uint8] | bytes, max_px: int = 640, quality: int = 80) -> bytes:
    """Encode a picture for the report: at most `max_px` on its longer side, never enlarged, WebP.

    image    PIL image, uint8 (h, w, 3), or encoded bytes; transparency is laid on white
    quality  WebP quality 1 to 100; text and thin contours stay readable at 80
    """
    opened = _opened(image)
    scale = min(1.0, max_px / max(opened.size))
    size = (max(1, round(opened.width * scale)), max(1, round(opened.height * scale)))
    small = opened if size == opened.size else opened.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def picture_px(n_pictures: int) -> int:
    """A longer side in pixels that keeps the report of `n_pictures` pictures near 20 MB or below."""
    return 800 if n_pictures <= 60 else 560 if n_pictures <= 300 else 400


def data_uri(encoded: bytes) -> str:
    """A picture as a `data:` address. Raises WsiPipelineError when the bytes are no PNG, JPEG or WebP."""
    for magic, mime in _MAGIC.items():
        if encoded.startswith(magic):
            return f"data:{mime};base64,{base64.b64encode(encoded).decode('ascii')}"
    raise WsiPipelineError(f"a report picture must be PNG, JPEG or WebP, got bytes starting {encoded[:4]!r}")


def picture_size(encoded: bytes) -> tuple[int, int]:
    """Width and height in pixels, read from the header alone."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.size


def _opened(image: Image.Image | NDArray[np.uint8] | bytes) -> Image.Image:
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
