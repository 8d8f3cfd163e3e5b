"""Which vendor's format OpenSlide takes a file for."""

from __future__ import annotations

from pathlib import Path

import openslide


def vendor_of(path: Path) -> str | None:
    """The format OpenSlide takes the file for ("aperio", "dicom", "generic-tiff"), or None."""
    vendor: str | None = openslide.OpenSlide.detect_format(path)
    return vendor
