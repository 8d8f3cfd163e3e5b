"""Read back a heatmap's PNG: its picture, and the text chunks that say whether it is up to date."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

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
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        width, _, height = str(image.info.get(PICTURE, "")).partition("x")
        return image.crop((0, 0, int(width), int(height)) if width.isdigit() and height.isdigit() else None)
