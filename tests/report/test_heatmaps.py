"""Heat lies where the patch lies, means what its value says, and never moves the thumbnail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.report.plain_heat import patch_field
from tests.work import calls
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps.heat import percentiles
from wsi_pipeline.report.maps.heatmaps import Heat, blend_heat, draw_heat, share_words

SLIDE = Size(6400, 4800)


def blank(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 240, np.uint8)


def attention(coords: NDArray[np.int64], patch: int, values: NDArray[np.floating], alpha: float = 0.6) -> Image.Image:
    """Attention over a blank slide."""
    return draw_heat(blank(), SLIDE, Heat.of_attention(coords, patch, values), alpha)


def overlap_1d(low: float, high: float, pixels: int) -> NDArray[np.float64]:
    """Length of [low, high) in each unit pixel, pixel by pixel: the plain definition."""
    return np.array([max(0.0, min(high, i + 1) - max(low, i)) for i in range(pixels)])


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 23),
    height=st.integers(1, 19),
    patch=st.integers(1, 400),
    boxes=st.lists(
        st.tuples(st.integers(0, 999), st.integers(0, 699), st.floats(-5, 5, width=32)), min_size=1, max_size=12
    ),
)
def test_field_equals_the_area_weighted_mean_by_definition(
    width: int, height: int, patch: int, boxes: list[tuple[int, int, float]]
) -> None:
    size = Size(1000, 700)
    weight, total = np.zeros((height, width)), np.zeros((height, width))
    for x, y, value in boxes:
        across = overlap_1d(x * width / 1000, min(x + patch, 1000) * width / 1000, width)
        down = overlap_1d(y * height / 700, min(y + patch, 700) * height / 700, height)
        weight += np.outer(down, across)
        total += value * np.outer(down, across)
    coords = np.array([box[:2] for box in boxes], np.int64)
    mean, coverage = patch_field((height, width), size, coords, patch, np.array([box[2] for box in boxes]))
    # Where a patch only grazes a pixel the mean is a quotient of two tiny sums.
    seen = weight > 1e-4
    np.testing.assert_allclose(mean[seen], (total / np.where(seen, weight, 1))[seen], atol=1e-6)
    np.testing.assert_allclose(coverage[seen], np.minimum(weight, 1)[seen], atol=1e-9)
    assert not coverage[weight == 0].any()


def test_heat_lies_exactly_at_the_patch_corner() -> None:
    coords = np.array([[1600, 1200], [4800, 3600]], np.int64)
    drawn = np.asarray(attention(coords, 800, np.array([0.0, 1.0]), alpha=1.0))
    changed = np.any(drawn[:48, :64] != 240, axis=2)
    expected = np.zeros((48, 64), bool)
    expected[12:20, 16:24] = expected[36:44, 48:56] = True
    np.testing.assert_array_equal(changed, expected)


def test_dark_end_is_low_and_bright_end_is_high() -> None:
    coords = np.array([[0, 0], [1600, 0], [3200, 0]], np.int64)
    drawn = np.asarray(attention(coords, 800, np.array([0.1, 0.2, 0.3]), alpha=1.0)).astype(int)
    low, middle, high = (int(drawn[2, column].sum()) for column in (2, 18, 34))
    assert low < middle < high


def test_half_covered_pixels_get_half_the_opacity() -> None:
    _, coverage = patch_field((48, 64), SLIDE, np.array([[50, 0]], np.int64), 100, np.array([1.0]))
    np.testing.assert_allclose(coverage[0, :3], [0.5, 0.5, 0.0], atol=1e-12)


def test_overlapping_patches_are_averaged() -> None:
    mean, _ = patch_field((48, 64), SLIDE, np.array([[0, 0], [400, 0]], np.int64), 800, np.array([1.0, 3.0]))
    np.testing.assert_allclose(mean[0, [1, 6, 10]], [1.0, 2.0, 3.0], atol=1e-12)


def test_order_of_patches_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    coords, values = rng.integers(0, 4000, (50, 2)), rng.random(50)
    order = rng.permutation(50)
    one = attention(coords, 500, values)
    other = attention(coords[order], 500, values[order])
    assert one.tobytes() == other.tobytes()


def test_no_patches_gives_the_bare_thumbnail_and_a_note() -> None:
    drawn = np.asarray(attention(np.zeros((0, 2), np.int64), 800, np.zeros(0)))
    np.testing.assert_array_equal(drawn[:48, :64], blank())
    assert (drawn[48:] < 128).any(), "the strip below must say that there are no patches"


@pytest.mark.parametrize("constant", [0.0, 1e-9, -3.5])
def test_constant_values_lie_in_the_middle_of_the_map(constant: float) -> None:
    values = np.full(5, constant)
    np.testing.assert_array_equal(percentiles(values), np.full(5, 50.0))
    coords = np.arange(10, dtype=np.int64).reshape(5, 2) * 100
    drawn = np.asarray(attention(coords, 100, values))
    assert np.any(drawn[:48, :64] != 240)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30), st.floats(0.1, 1e6))
def test_percentiles_keep_order_and_ties_and_nothing_else(ranks: list[int], stretch: float) -> None:
    values = np.array(ranks, float)
    found = percentiles(values)
    for value, place in zip(values, found, strict=True):
        assert place == pytest.approx(100 * ((values < value).sum() + (values <= value).sum()) / (2 * len(values)))
    np.testing.assert_allclose(percentiles(np.exp(values) * stretch), found)


def test_a_band_of_the_picture_is_cut_from_the_whole() -> None:
    rng = np.random.default_rng(3)
    coords, values = rng.integers(0, 4400, (40, 2)), rng.random(40)
    whole = patch_field((48, 64), SLIDE, coords, 700, values)
    for rows in ((0, 48), (5, 17), (47, 48)):
        part = patch_field((48, 64), SLIDE, coords, 700, values, rows)
        for one, other in zip(part, whole, strict=True):
            np.testing.assert_allclose(one, other[rows[0] : rows[1]], atol=1e-9)


def test_a_tall_picture_is_blended_as_one_that_needs_no_bands() -> None:
    tall = np.full((1300, 20, 3), 200, np.uint8)
    size = Size(2000, 130_000)
    heat = Heat.of_attention(np.array([[0, 51_000], [0, 90_000]], np.int64), 800, np.array([0.2, 0.8]))
    changed = np.flatnonzero((blend_heat(tall, size, heat, 1.0)[:, 0] != 200).any(axis=1))
    assert changed.tolist() == [*range(510, 518), *range(900, 908)]


def test_for_and_against_differ_and_nothing_lies_on_zero() -> None:
    coords = np.array([[0, 0], [1600, 0], [3200, 0]], np.int64)
    heat = Heat.of_contribution(coords, 800, np.array([-2.0, 0.0, 2.0]), "tumour")
    drawn = np.asarray(draw_heat(blank(), SLIDE, heat, 1.0)).astype(int)
    against, zero, speaking = drawn[2, 2], drawn[2, 18], drawn[2, 34]
    np.testing.assert_array_equal(zero, [240, 240, 240])
    assert against[2] > against[0], "purple against"
    assert speaking[0] > speaking[2], "orange for"


@pytest.mark.parametrize(
    ("share", "words"), [(5e-6, "<0.01×"), (0.25, "0.25×"), (1.0, "1.0×"), (9.94, "9.9×"), (41.2, "41×")]
)
def test_attention_is_written_as_a_multiple_of_uniform_attention(share: float, words: str) -> None:
    assert share_words(share / 50, 50) == words


@pytest.mark.parametrize(
    ("coords", "values", "message"),
    [
        (np.zeros((3, 2), np.int64), np.zeros(2), "values"),
        (np.zeros((3, 3), np.int64), np.zeros(3), "coords"),
        (np.zeros((1, 2), np.int64), np.array([np.nan]), "finite"),
    ],
)
def test_disagreeing_arguments_are_refused(
    coords: NDArray[np.int64], values: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(WsiPipelineError, match=message):
        attention(coords, 100, values)


def test_a_hundred_thousand_patches_are_drawn_at_once() -> None:
    rng = np.random.default_rng(1)
    coords, values = rng.integers(0, 90_000, (100_000, 2)), rng.random(100_000)
    thumbnail, size = np.full((1000, 1000, 3), 230, np.uint8), Size(100_000, 100_000)

    def draw(number: int) -> None:
        draw_heat(thumbnail, size, Heat.of_attention(coords[:number], 512, values[:number]))

    assert calls(draw, 100_000) < 2 * calls(draw, 1000)


def test_the_legend_tells_that_attention_is_nearly_even() -> None:
    coords, values = np.zeros((4, 2), np.int64), np.array([0.2490, 0.2500, 0.2500, 0.2510])
    heat = Heat.of_attention(coords, 256, values)
    assert heat.labels == ("weakest 0.9960×", "median 1.0000×", "strongest 1.0040×")
    assert Heat.of_attention(coords, 256, np.array([0.1, 0.2, 0.3, 0.4])).labels[0] == "weakest 0.40×"
