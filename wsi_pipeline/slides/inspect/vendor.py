"""Which vendor's format OpenSlide detects in a file."""

from __future__ import annotations

from pathlib import Path

import openslide


def vendor_of(path: Path) -> str | None:
    """The format that OpenSlide detects ("aperio", "dicom", "generic-tiff"), or None."""
    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return vendor
