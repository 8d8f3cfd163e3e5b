"""TIFF segments of every layout against the pixels they were written from, in bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.slide_files import tissue_like, write_stripped_tiff
from wsi_pipeline.slides.backends import tiffslide
from wsi_pipeline.slides.open import open_slide

RGB = tissue_like(301, 203)
KINDS = [("rgb", False), ("rgb", True), ("minisblack", True), ("miniswhite", False)]


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
@pytest.mark.parametrize("grid", [{"rowsperstrip": 64}, {"tile": (64, 64)}], ids=["strips", "tiles"])
@pytest.mark.parametrize(("photometric", "predictor"), KINDS)
def test_lossless_segments_give_the_pixels_written(
    tmp_path: Path, photometric: str, predictor: bool, grid: dict[str, Any], compression: str
) -> None:
    written = RGB if photometric == "rgb" else RGB[..., 0]
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, written, photometric=photometric, predictor=predictor, compression=compression, metadata=None, **grid
    )
    grey = np.repeat((255 - written if photometric == "miniswhite" else written)[..., None], 3, axis=2)
    with open_slide(path, "tiffslide") as slide:
        assert np.array_equal(slide.read_region(0, 0, 0, 301, 203), RGB if photometric == "rgb" else grey)


@pytest.mark.parametrize(("compression", "rows"), [("jpeg", 64), ("none", None)], ids=["stripped", "flat"])
def test_reading_regions_holds_a_part_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, rows: int | None
) -> None:
    rgb = np.tile(tissue_like(1000, 1000), (4, 4, 1))  # 48 MB
    path = write_stripped_tiff(tmp_path / "a.tif", rgb, rows=rows, compression=compression)
    monkeypatch.setattr(tiffslide, "STRIP_CACHE_BYTES", 4 << 20)
    tracemalloc.start()
    try:
        with open_slide(path) as slide:
            for y in range(0, 4000, 256):
                slide.read_region(500, y, 0, 256, 256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12e6
