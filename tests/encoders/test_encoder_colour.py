"""Stain and texture statistics: named, finite, bounded, and blind to how a patch is turned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.color import rgb2hed
from suites.encoder_contract import tissue_patches

from wsi_pipeline.encoders.colour import ColourEncoder, ColourPlan
from wsi_pipeline.encoders.colour_statistics import (
    HED_TOP,
    describe_patch,
    feature_names,
    hsv_statistics,
    moments,
    separate_stains,
    shrink,
)

Patch = NDArray[np.uint8]
NAMES = feature_names()
patches = st.integers(1, 40).flatmap(lambda side: hnp.arrays(np.uint8, (side, side, 3)))


def values_of(patch: Patch) -> dict[str, float]:
    return dict(zip(NAMES, describe_patch(patch).tolist(), strict=True))


def planes(patch: Patch) -> Patch:
    return np.ascontiguousarray(patch.transpose(2, 0, 1))


def test_every_value_has_its_own_name() -> None:
    assert len(set(NAMES)) == len(NAMES) == ColourPlan().info.dim == 133


@given(patches)
@settings(max_examples=60, deadline=None)
def test_finite_and_within_half_precision(patch: Patch) -> None:
    values = describe_patch(patch)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 100


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 120, 180), (255, 0, 0)])
@pytest.mark.parametrize("side", [1, 2, 17, 256, 300])
def test_a_constant_patch_has_no_texture(colour: tuple[int, int, int], side: int) -> None:
    values = values_of(np.full((side, side, 3), colour, np.uint8))
    assert np.isfinite(list(values.values())).all()
    for name, value in values.items():
        if name.endswith(("_std", "_skew", "_kurtosis", "gradient_mean", "_p90", "_coherence")):
            assert value == pytest.approx(0, abs=1e-6), name
    assert values["red_mean"] == pytest.approx(colour[0] / 255, abs=1e-5)


@pytest.mark.parametrize("side", [64, 256])
def test_turned_and_mirrored_patches_have_the_same_statistics(side: int) -> None:
    patch = tissue_patches(5, side)[4]
    expected = describe_patch(patch)
    for turns in range(4):
        for turned in (np.rot90(patch, turns), np.rot90(patch, turns)[::-1]):
            np.testing.assert_allclose(describe_patch(turned), expected, atol=2e-3, err_msg=f"turns {turns}")


def test_histograms_are_fractions() -> None:
    values = values_of(tissue_patches(4)[3])
    for start in ("haematoxylin_bin", "eosin_bin", "dab_bin", "haematoxylin_lbp1", "grey_lbp1", "grey_lbp3"):
        parts = [value for name, value in values.items() if name.startswith(start)]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(1, abs=1e-5)


def test_stains_are_those_of_scikit_image() -> None:
    patch = tissue_patches(4)[2]
    expected = np.clip(rgb2hed(patch) / np.array(HED_TOP), 0, 1)
    np.testing.assert_allclose(separate_stains(planes(patch)).transpose(1, 2, 0), expected, atol=1e-5)


def test_stains_tell_haematoxylin_from_eosin() -> None:
    blue, pink = (np.full((32, 32, 3), colour, np.uint8) for colour in ((90, 70, 150), (235, 150, 190)))
    assert values_of(blue)["haematoxylin_mean"] > 3 * values_of(pink)["haematoxylin_mean"]
    assert values_of(pink)["hue_cosine"] > 0 > values_of(blue)["hue_sine"]


def test_moments_against_their_definition() -> None:
    rng = np.random.default_rng(3)
    sample = rng.gamma(2.0, 0.1, (1, 20_000)).astype(np.float32)
    centred = sample.astype(np.float64) - sample.mean(dtype=np.float64)
    std = np.sqrt((centred**2).mean())
    skew, kurtosis = (centred**3).mean() / std**3, (centred**4).mean() / std**4
    expected = [sample.mean(), std, np.arcsinh(skew), np.log(kurtosis)]
    np.testing.assert_allclose(moments(sample)[0], expected, rtol=1e-4)


def test_hue_is_an_angle() -> None:
    """Reds on both sides of 0 degrees average to red, not to cyan."""
    patch = np.zeros((2, 2, 3), np.uint8)
    patch[0], patch[1] = (200, 20, 0), (200, 0, 20)
    cosine, sine, concentration = hsv_statistics(planes(patch))[-3:]
    assert cosine == pytest.approx(1, abs=1e-5)
    assert sine == pytest.approx(0, abs=1e-5)
    assert 0.9 < concentration < 1
    assert hsv_statistics(planes(np.full((4, 4, 3), 77, np.uint8)))[-3:].tolist() == [0, 0, 0]


@given(st.integers(1, 300), st.integers(16, 128))
@settings(max_examples=25, deadline=None)
def test_shrinking_keeps_the_mean_and_bounds_the_side(side: int, target: int) -> None:
    image = np.random.default_rng(side).integers(0, 256, (3, side, side), dtype=np.uint8)
    small = shrink(image, target)
    assert small.shape[1] == small.shape[2] < 2 * target
    kept = small.shape[1] * (side // small.shape[1] if small.shape[1] else 1)
    assert abs(float(small.mean()) - float(image[:, :kept, :kept].mean())) < 1.0


def test_threads_do_not_change_the_values() -> None:
    batch = tissue_patches(9)
    one, many = ColourEncoder("", threads=1), ColourEncoder("", threads=4)
    np.testing.assert_array_equal(one.encode(batch), many.encode(batch))
    np.testing.assert_array_equal(one.encode(batch), np.stack([describe_patch(patch) for patch in batch]))
