"""Read back a heatmap's PNG: its picture, and the text chunks that say whether it is up to date."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from wsi_pipeline.images.png import decode_png

DIGEST, SETTINGS, PICTURE = "wsi-pipeline digest", "wsi-pipeline settings", "wsi-pipeline picture"
"""Digest of models and features, settings, size WxH of the picture above the colour bar."""


def png_chunks(path: Path) -> dict[str, str]:
    """Text chunks of a PNG; empty for a missing or damaged file."""
    try:
        with Image.open(path) as image:
            return {str(key): str(value) for key, value in image.info.items()}
    except OSError:
        return {}


def read_overlay(path: Path) -> Image.Image | None:
    """The attention overlay without its colour bar, so that it matches the thumbnail; None for a missing file."""
    if not path.is_file():
        return None
    encoded = path.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
        width, _, height = str(image.info.get(PICTURE, "")).partition("x")
        pixels = decode_png(encoded)
        whole = image if pixels is None else Image.fromarray(pixels)
        return whole.crop((0, 0, int(width), int(height)) if width.isdigit() and height.isdigit() else None)
