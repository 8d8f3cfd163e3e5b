"""A TIFF image read segment by segment."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.slide_files import tissue_like, write_stripped_tiff
from wsi_pipeline.slides.backends import tiffslide
from wsi_pipeline.slides.open import open_slide


def test_reading_patches_row_by_row_decodes_each_strip_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = tissue_like(1000, 512)
    path = write_stripped_tiff(tmp_path / "a.tif", rgb, rows=64)
    monkeypatch.setattr(tiffslide, "STRIP_CACHE_BYTES", 4 * 64 * 1000 * 3)  # four strips: one row of patches
    decoded: Counter[int] = Counter()
    with open_slide(path) as slide:
        inner = slide._images[0]._decode  # type: ignore[attr-defined]
        slide._images[0]._decode = lambda data, index: decoded.update([index]) or inner(data, index)  # type: ignore[attr-defined]
        for y in range(0, 512, 256):
            for x in range(0, 1000, 100):
                slide.read_region(x, y, 0, 256, 256)
    assert decoded == dict.fromkeys(range(8), 1)
