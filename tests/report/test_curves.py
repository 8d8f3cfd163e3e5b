"""The numbers behind the figures: against scikit-learn, against definitions, and where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from wsi_pipeline.report.figures.curves import curve_band, patch_count_outliers, pr_points, roc_points

scored = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40)


@settings(deadline=None)
@given(scored)
def test_area_under_the_points_is_the_auroc_with_ties(rows: list[tuple[bool, int]]) -> None:
    truth, score = np.array([row[0] for row in rows]), np.array([row[1] / 6 for row in rows])
    assume(truth.any() and not truth.all())
    curve = roc_points(truth, score)
    assert curve is not None
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(curve.x) >= 0)
    assert np.all(np.diff(curve.y) >= 0)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(roc_auc_score(truth, score))


@settings(deadline=None)
@given(scored)
def test_area_under_precision_and_recall_is_the_average_precision(rows: list[tuple[bool, int]]) -> None:
    truth, score = np.array([row[0] for row in rows]), np.array([row[1] / 6 for row in rows])
    assume(truth.any() and not truth.all())
    curve = pr_points(truth, score)
    assert curve is not None
    assert (curve.x[0], curve.x[-1]) == (0, 1)
    assert np.all(np.diff(curve.x) >= 0)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(average_precision_score(truth, score))


@given(scored, st.data())
def test_weights_equal_repeated_rows(rows: list[tuple[bool, int]], data: st.DataObject) -> None:
    truth, score = np.array([row[0] for row in rows]), np.array([row[1] / 6 for row in rows])
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))
    weighted = roc_points(truth, score, times.astype(np.float64))
    repeated = roc_points(np.repeat(truth, times), np.repeat(score, times))
    if repeated is None or weighted is None:
        assert repeated is None
        assert weighted is None
        return
    assert np.trapezoid(weighted.y, weighted.x) == pytest.approx(np.trapezoid(repeated.y, repeated.x))


@pytest.mark.parametrize("truth", [[], [True, True], [False]])
def test_one_class_has_no_curve(truth: list[bool]) -> None:
    assert roc_points(np.array(truth, bool), np.linspace(0, 1, len(truth))) is None


def two_groups(n: int, separation: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = np.arange(n) % 2 == 1
    return truth, rng.normal(size=n) + separation * truth


def test_band_holds_the_curve_and_shrinks_with_more_patients() -> None:
    widths = []
    for n in (30, 600):
        truth, score = two_groups(n, 1.2)
        band = curve_band(roc_points, truth, score, np.arange(n).astype(str))
        curve = roc_points(truth, score)
        assert band is not None
        assert curve is not None
        inner = np.interp(band.at[10:90], curve.x, curve.y)
        assert np.mean((inner >= band.low[10:90] - 1e-9) & (inner <= band.high[10:90] + 1e-9)) > 0.95
        widths.append(float(np.mean(band.high - band.low)))
    assert widths[1] < widths[0] / 2


def test_slides_of_one_patient_are_drawn_together() -> None:
    truth, score = two_groups(60, 1.2)
    alone = curve_band(roc_points, truth, score, np.arange(60).astype(str))
    together = curve_band(roc_points, np.tile(truth, 5), np.tile(score, 5), np.tile(np.arange(60), 5).astype(str))
    assert alone is not None
    assert together is not None
    np.testing.assert_allclose(together.low, alone.low, atol=1e-9)


def test_resamples_that_miss_a_class_are_left_out() -> None:
    truth = np.array([True] + [False] * 5)
    band = curve_band(roc_points, truth, np.arange(6.0), np.arange(6).astype(str), resamples=400)
    assert band is not None
    # The one positive patient is drawn with probability 1 - (5/6)^6 = 0.665.
    assert 230 < band.resamples < 300


def test_one_patient_or_one_class_has_no_band() -> None:
    assert curve_band(roc_points, np.array([True, False]), np.arange(2.0), np.array(["p", "p"])) is None
    assert curve_band(roc_points, np.array([True, True]), np.arange(2.0), np.array(["p", "q"])) is None


@given(
    st.lists(st.integers(800, 1200), min_size=5, max_size=60),
    st.lists(st.sampled_from([3, 20, 60_000, 900_000]), max_size=1),
)
def test_only_counts_far_from_the_rest_are_marked(usual: list[int], odd: list[int]) -> None:
    marked = patch_count_outliers(np.array(usual + odd))
    np.testing.assert_array_equal(marked, [False] * len(usual) + [True] * len(odd))


@given(st.lists(st.integers(0, 10**6), max_size=40), st.integers(2, 50))
def test_marks_do_not_depend_on_the_unit_or_on_order(counts: list[int], factor: int) -> None:
    values = np.array(counts, np.int64)
    marked = patch_count_outliers(values)
    np.testing.assert_array_equal(patch_count_outliers(values[::-1])[::-1], marked)
    assert not marked[values == 0].any()
    assert marked.sum() <= len(values) / 2
    if len(values) > 0:
        # Scaling moves logs by a constant; only a count on the very threshold may fall either way.
        logs = np.log(values[values > 0]) if (values > 0).any() else np.zeros(1)
        away = np.abs(logs - np.median(logs))
        spread = 1.4826 * np.median(away) or 1.2533 * np.mean(away)
        assume(not np.any(np.isclose(away, 3.5 * spread)) and not np.any(np.isclose(away, np.log(2))))
        np.testing.assert_array_equal(patch_count_outliers(values * factor), marked)


def test_few_slides_and_equal_counts() -> None:
    assert not patch_count_outliers(np.array([1, 100, 10_000, 0, 0, 0])).any()
    np.testing.assert_array_equal(patch_count_outliers(np.array([500] * 20 + [50_000])), [False] * 20 + [True])
    assert patch_count_outliers(np.zeros(0, np.int64)).shape == (0,)


def test_precision_band_narrows_with_more_patients_and_needs_two() -> None:
    widths = []
    for n in (40, 800):
        truth, score = two_groups(n, 1.2)
        band = curve_band(pr_points, truth, score, np.arange(n).astype(str))
        assert band is not None
        assert np.all(band.low <= band.high)
        widths.append(float(np.mean(band.high - band.low)))
    assert widths[1] < widths[0] / 2
    assert curve_band(pr_points, truth, score, np.zeros(800).astype(str)) is None
