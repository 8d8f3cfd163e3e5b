"""Text chunks of a heatmap's PNG, by which it is known whether it is up to date."""

from __future__ import annotations

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
