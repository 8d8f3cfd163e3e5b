"""The maker of huge slides, at a small size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.big_slide import ELLIPSES, LEVELS, make_big_slide
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.thumbnail import read_whole


def test_both_backends_see_the_whole_pyramid_and_the_same_pixels(tmp_path: Path) -> None:
    path = make_big_slide(tmp_path / "big.svs", width=4096, height=3072)
    thumbnails = []
    for backend in ("openslide", "tiffslide"):
        with open_slide(path, backend) as slide:
            assert [(level.size.width, level.size.height) for level in slide.info.levels] == [
                (4096 // step, 3072 // step) for step in LEVELS
            ]
            assert (slide.info.vendor, slide.info.mpp, slide.info.objective) == ("aperio", 0.25, 40)
            thumbnails.append(read_whole(slide, 0.25, 8.0))
    assert np.array_equal(*thumbnails)
    tissue = (thumbnails[0][..., 1] < 200).mean()
    assert tissue == pytest.approx(sum(np.pi * rx * ry for _, _, rx, ry in ELLIPSES), rel=0.05)


def test_levels_are_the_shrunk_level_0(tmp_path: Path) -> None:
    path = make_big_slide(tmp_path / "big.svs", width=2048, height=2048, levels=(1, 4, 16))
    with open_slide(path) as slide:
        level0 = slide.read_region(0, 0, 0, 2048, 2048).astype(float)
        for number, step in ((1, 4), (2, 16)):
            side = 2048 // step
            means = level0.reshape(side, step, side, step, 3).mean(axis=(1, 3))
            assert np.abs(slide.read_region(0, 0, number, side, side) - means).mean() < 3


def test_a_single_level_can_be_asked_for(tmp_path: Path) -> None:
    path = make_big_slide(tmp_path / "big.svs", width=1000, height=700, levels=(1,), mpp=0.5)
    with open_slide(path) as slide:
        assert len(slide.info.levels) == 1
        assert slide.info.mpp == 0.5


def test_other_levels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="levels must be powers of two"):
        make_big_slide(tmp_path / "big.svs", levels=(1, 3))
