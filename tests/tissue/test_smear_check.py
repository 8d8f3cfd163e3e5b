"""A smear on the glass is said, tissue in any stain is not taken for one, and a mask without inside has no answer."""

from __future__ import annotations

import numpy as np
import pytest
import tissue_scenes

from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.detectors.smear_check import smooth_fraction
from wsi_pipeline.tissue.segmentation import segment_tissue


def warning(rgb: np.ndarray, mpp: float = 8.0) -> str:
    return segment_tissue(rgb, Size(rgb.shape[1], rgb.shape[0]), mpp, SegmentSpec()).warning


def test_a_smear_over_half_the_glass_is_said():
    smeared = tissue_scenes.half_pink(tissue_scenes.stained("H&E", tissue_scenes.blob(1)))
    assert "as smooth as bare glass" in warning(smeared.rgb)


@pytest.mark.parametrize("stain", [stain for stain in tissue_scenes.STAINS if stain not in tissue_scenes.HARD_STAINS])
@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_tissue_is_no_smear(stain, noise):
    scene = tissue_scenes.stained(stain, tissue_scenes.blob(3), noise=noise)
    assert smooth_fraction(scene.rgb, scene.tissue, 8.0) < 0.02
    assert warning(scene.rgb) == ""


def test_yellowed_glass_which_is_left_out_is_no_smear():
    assert warning(tissue_scenes.half_yellow(tissue_scenes.stained("H&E", tissue_scenes.blob(3))).rgb) == ""


def test_the_share_is_that_of_the_smear():
    tissue = tissue_scenes.blob(1)
    half = np.zeros_like(tissue)
    half[:, : half.shape[1] // 2] = True
    smeared = tissue_scenes.half_pink(tissue_scenes.stained("H&E", tissue))
    mask = half | tissue
    assert smooth_fraction(smeared.rgb, mask, 8.0) == pytest.approx(np.mean((half & ~tissue)[mask]), abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (9, 9), (31, 40)])
def test_all_and_nothing_and_tiny_masks_have_an_answer(shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert smooth_fraction(rgb, np.ones(shape, dtype=bool), 8.0) == 0
    assert smooth_fraction(rgb, np.zeros(shape, dtype=bool), 8.0) == 0
