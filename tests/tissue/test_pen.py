"""Saturated ink that crosses H&E tissue is left out at any mask resolution, and dense nuclei stay."""

from __future__ import annotations

import numpy as np
import pytest
import tissue_scenes
from scipy import ndimage as ndi

from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.detectors.filters import local_deviation
from wsi_pipeline.tissue.detectors.optics import DARKEST, mean_density, optical_density
from wsi_pipeline.tissue.detectors.pen import pen_mask
from wsi_pipeline.tissue.segmentation import segment_tissue

ZOOM = 4
WIDTHS_UM = (48, 120, 360)
MARGIN = 60
"""Pixels of 2 um around a stroke on which no answer is asked."""
AT_2_MPP = tuple(tissue_scenes.FELT_PENS)[::2]
KEPT = {"violet": 0.1}
"""Part of a stroke that may be kept where its hue is next to haematoxylin's; 0.02 for the others."""


@pytest.fixture(scope="module")
def follicular():
    return tissue_scenes.follicular(ZOOM)


def found(rgb: np.ndarray, mpp: float) -> np.ndarray:
    size = Size(rgb.shape[1], rgb.shape[0])
    return segment_tissue(rgb, size, mpp, SegmentSpec()).mask.pixels


def bytes_of(rgb: np.ndarray) -> np.ndarray:
    return np.rint(rgb).astype(np.uint8)


@pytest.mark.parametrize("width_um", WIDTHS_UM)
@pytest.mark.parametrize("pen", tissue_scenes.FELT_PENS)
def test_ink_crossing_tissue_is_left_out_and_dense_nuclei_stay(follicular, pen, width_um):
    plain, follicles = follicular
    scene = tissue_scenes.crossed(plain, pen, width_um, ZOOM)
    near = ndi.binary_dilation(scene.ink, iterations=MARGIN)
    for factor in (1, 4, 8) if pen in AT_2_MPP else (2, 4, 8):
        mpp = 2.0 * factor
        if width_um < 4.5 * mpp:
            continue
        mask = found(bytes_of(tissue_scenes.coarser(scene.rgb, factor)), mpp)
        ink, piece, core, away = (
            tissue_scenes.coarser(plane, factor) == 1 for plane in (scene.ink, plain.tissue, follicles, ~near)
        )
        on_glass = ink & ~ndi.binary_dilation(tissue_scenes.coarser(plain.tissue, factor) > 0, iterations=2)
        assert np.count_nonzero(on_glass) > 30
        assert np.mean(mask[on_glass]) < KEPT.get(pen, 0.02), f"ink at {mpp} mpp"
        assert np.mean(mask[core & away]) > 0.99, f"follicles at {mpp} mpp"
        assert np.mean(mask[piece & away]) > 0.98, f"tissue at {mpp} mpp"


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_dense_nuclei_alone_are_no_ink(follicular, factor):
    plain, follicles = follicular
    mpp = 2.0 * factor
    rgb = bytes_of(tissue_scenes.coarser(plain.rgb, factor))
    density = optical_density(rgb, np.array([243, 243, 243], dtype=np.float32))
    mean = mean_density(density)
    assert np.median(mean[tissue_scenes.coarser(follicles, factor) == 1]) > 0.4
    assert not pen_mask(density, local_deviation(mean, 1), mpp).any()


def test_a_stroke_wider_than_the_tissue_is_no_stain(follicular):
    """A hue that most of the matter has may be the stain; dense all over, it is ink."""
    small = tissue_scenes.stained("H&E", tissue_scenes.blob(8, cover=0.02))
    for pen in ("royal blue", "dark blue", "teal"):
        scene = tissue_scenes.marked(small, pen, ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9)), width_px=12)
        mask = found(scene.rgb, 8.0)
        assert np.mean(mask[scene.ink & ~scene.tissue]) < 0.02
        assert np.mean(mask[small.tissue & ~scene.ink]) > 0.9


def test_rare_dense_collagen_is_tissue_although_it_has_the_blue_of_a_pen():
    """A tenth of the tissue in aniline blue, up to the tissue's edge: the hue is rare, but no denser than a stain."""
    piece = tissue_scenes.blob(6)
    pale, blue = (tissue_scenes.stained(stain, piece, seed=7) for stain in ("PAS", "trichrome"))
    lumps = ndi.gaussian_filter(np.random.default_rng(3).normal(size=piece.shape), 6)
    lumps = (lumps > np.quantile(lumps, 0.9)) & piece
    amount = np.where(lumps, 1.0, 0.0)[..., None] * np.array([0.62, 0.38, 0.09])
    texture = (blue.rgb / 243.0) ** 0.3
    rgb = bytes_of(np.where(lumps[..., None], 243 * texture * 10**-amount, pale.rgb))
    assert np.mean(found(rgb, 8.0)[lumps]) > 0.98


def test_densities_end_where_a_scanner_sees_black():
    black = np.zeros((2, 2, 3), dtype=np.uint8)
    assert optical_density(black, np.array([243, 243, 243], dtype=np.float32)).max() == np.float32(DARKEST)
