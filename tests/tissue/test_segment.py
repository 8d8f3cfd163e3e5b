"""Tissue is found on drawn slides, nothing is found where nothing is, and no picture is too odd to answer."""

from __future__ import annotations

import numpy as np
import pytest
import tissue_scenes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi

from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.errors import SlideError, UsageError
from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.detectors.methods import NONE, SEGMENTERS
from wsi_pipeline.tissue.segmentation import segment_tissue

SCENES = {scene.name: scene for scene in tissue_scenes.scenes()}
RED_ON_RED = "trichrome, red pen"


def found(rgb: np.ndarray, mpp: float = 8.0, **options: object) -> tuple[np.ndarray, str]:
    result = segment_tissue(rgb, Size(rgb.shape[1], rgb.shape[0]), mpp, SegmentSpec(**options))
    return result.mask.pixels, result.warning


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))


@pytest.mark.parametrize("name", [name for name in SCENES if not name.startswith("blank")])
def test_tissue_is_found_whatever_the_stain_and_the_dirt(name):
    scene = SCENES[name]
    mask, warning = found(scene.rgb)
    asked = ~scene.ink
    assert dice(mask & asked, scene.tissue & asked) > 0.97
    assert warning == ""


@pytest.mark.parametrize("name", [name for name in SCENES if name.endswith("pen") and name != RED_ON_RED])
def test_ink_is_no_tissue(name):
    scene = SCENES[name]
    mask, _ = found(scene.rgb)
    stroke = ndi.binary_erosion(scene.ink, iterations=6)
    assert np.mean(mask[stroke]) < 0.01


def test_red_ink_over_red_stain_is_mostly_no_tissue():
    scene = SCENES[RED_ON_RED]
    mask, _ = found(scene.rgb)
    assert np.mean(mask[scene.ink & ~scene.tissue]) < 0.05, "off the tissue it is ink and nothing else"


@pytest.mark.parametrize("name", [name for name in SCENES if name.startswith("blank")])
@pytest.mark.parametrize("method", ["hybrid", "otsu"])
def test_a_blank_slide_has_no_tissue(name, method):
    mask, warning = found(SCENES[name].rgb, method=method)
    assert not mask.any()
    assert warning.startswith("no tissue found")


def test_pale_and_dark_pieces_on_one_slide_are_both_found():
    pale = tissue_scenes.stained("pale H&E", tissue_scenes.blob(3), seed=1)
    dark = tissue_scenes.stained("H&E", tissue_scenes.blob(4), seed=2)
    mask, _ = found(np.concatenate([pale.rgb, dark.rgb], axis=1))
    assert dice(mask, np.concatenate([pale.tissue, dark.tissue], axis=1)) > 0.97


def test_blue_collagen_is_tissue_although_it_has_the_blue_of_a_pen():
    piece = tissue_scenes.blob(6)
    scene = tissue_scenes.stained("trichrome", piece)
    blue = (scene.rgb[..., 2].astype(int) - scene.rgb[..., 0] > 60) & piece
    mask, _ = found(scene.rgb)
    assert np.count_nonzero(blue) > 5000
    assert np.mean(mask[blue]) > 0.99


def test_a_small_biopsy_beside_much_ink_is_found_and_the_ink_is_not():
    piece = tissue_scenes.blob(8, cover=0.02)
    scene = tissue_scenes.stained("H&E", piece)
    for path in (((0.1, 0.2), (0.9, 0.15)), ((0.1, 0.85), (0.9, 0.9)), ((0.1, 0.2), (0.1, 0.85))):
        scene = tissue_scenes.marked(scene, "blue", path)
    mask, _ = found(scene.rgb)
    assert dice(mask & ~scene.ink, piece & ~scene.ink) > 0.9
    assert np.mean(mask[scene.ink & ~piece]) < 0.02


@pytest.mark.parametrize("factor", [2, 4])
def test_coarser_pictures_give_the_same_tissue(factor):
    scene = SCENES["H&E"]
    height, width = scene.tissue.shape
    blocks = scene.rgb.reshape(height // factor, factor, width // factor, factor, 3).mean(axis=(1, 3))
    mask, _ = found(blocks.astype(np.uint8), mpp=8.0 * factor)
    truth = scene.tissue.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3)) > 0.5
    assert dice(mask, truth) > 0.96


@pytest.mark.parametrize("method", SEGMENTERS.names())
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (16, 16), (2, 3), (5, 100)])
@pytest.mark.parametrize("mpp", [0.5, 8.0, 40.0])
def test_tiny_pictures_give_a_mask_of_their_size(method, shape, mpp):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask, _ = found(rgb, mpp=mpp, method=method)
    assert mask.shape == shape
    assert mask.dtype == np.bool_


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30).map(lambda s: (*s, 3))),
    st.floats(0.2, 60),
)
def test_any_picture_has_an_answer(rgb, mpp):
    for method in SEGMENTERS:
        assert SEGMENTERS.get(method)(rgb, mpp).shape == rgb.shape[:2]


@pytest.mark.parametrize("method", [name for name in SEGMENTERS.names() if name != NONE])
@pytest.mark.parametrize("grey", [255, 243, 200])
def test_even_bright_grey_has_no_tissue(method, grey):
    mask, warning = found(np.full((90, 120, 3), grey, dtype=np.uint8), method=method)
    assert not mask.any()
    assert warning == "no tissue found"


@pytest.mark.parametrize("grey", [0, 30, 128])
def test_even_dark_grey_has_no_tissue_for_the_default(grey):
    assert not found(np.full((90, 120, 3), grey, dtype=np.uint8))[0].any()


def test_a_picture_full_of_tissue_is_full_of_tissue_and_says_so():
    scene = tissue_scenes.stained("H&E", np.ones((200, 300), dtype=bool))
    mask, warning = found(scene.rgb)
    assert mask.mean() > 0.99
    assert warning.startswith("mask covers nearly all of the slide (100 %)")


def test_very_little_tissue_is_said():
    piece = np.zeros((600, 900), dtype=bool)
    piece[300:316, 400:412] = True
    mask, warning = found(tissue_scenes.stained("H&E", piece).rgb, min_tissue_um2=5000.0)
    assert mask.any()
    assert warning.startswith("almost no tissue (0.0")


def test_fragments_under_the_limit_are_said_when_they_were_all():
    piece = np.zeros((100, 100), dtype=bool)
    piece[40:50, 40:50] = True
    mask, warning = found(tissue_scenes.stained("H&E", piece).rgb, min_tissue_um2=50_000.0)
    assert not mask.any()
    assert "50,000 um2" in warning


def test_the_mask_lies_on_the_slide():
    scene = SCENES["H&E"]
    result = segment_tissue(scene.rgb, Size(560 * 16 + 3, 420 * 16 + 5), 0.5, SegmentSpec())
    assert result.mask.slide_size == Size(560 * 16 + 3, 420 * 16 + 5)
    assert result.mask.tissue_mm2 == pytest.approx(np.count_nonzero(scene.tissue) * 64e-6, rel=0.03)


def test_what_is_no_picture_is_refused():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(SlideError, match="uint8"):
            segment_tissue(wrong, Size(4, 4), 8.0, SegmentSpec())


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(UsageError) as caught:
        found(np.zeros((4, 4, 3), np.uint8), method="magic")
    assert "hybrid, density, otsu, none" in str(caught.value)
