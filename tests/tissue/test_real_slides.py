"""The default detector on real slides, against the outlines drawn by hand for the benchmark."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.segmentation import segment_tissue

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def pictures(data_dir):
    """The benchmark's real pictures, and its way to a mask."""
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import segmentation
    finally:
        sys.path.remove(folder)
    return [(picture, segmentation.found(picture, "hybrid")) for picture in segmentation.real(data_dir)]


def test_tissue_agrees_with_the_hand_drawn_outlines(pictures):
    for picture, mask in pictures:
        truth, answer = picture.tissue & picture.asked, mask & picture.asked
        dice = 2 * np.count_nonzero(truth & answer) / (np.count_nonzero(truth) + np.count_nonzero(answer))
        assert dice > 0.95, picture.name


def test_real_ink_is_no_tissue(pictures):
    marked = [(picture, mask) for picture, mask in pictures if picture.ink.any()]
    assert len(marked) == 2
    for picture, mask in marked:
        assert np.mean(mask[picture.ink]) < 0.08, picture.name


def test_a_flat_image_of_unknown_resolution_says_what_was_dropped(data_dir):
    rgb = tifffile.imread(data_dir / "slides" / "kidney-48-5.tif")[..., :3]
    size = Size(rgb.shape[1], rgb.shape[0])
    guessed = segment_tissue(np.ascontiguousarray(rgb), size, 0.5, SegmentSpec())
    assert "smaller than 16,000 um2" in guessed.warning
    coarse = segment_tissue(np.ascontiguousarray(rgb), size, 8.0, SegmentSpec())
    assert coarse.mask.pixels[480:600, 260:420].sum() > 0.9 * coarse.mask.pixels.sum() > 2000
