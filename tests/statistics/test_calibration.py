"""Calibration and thresholds: right on known cases, blind to order, and no better than they should be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from wsi_pipeline.statistics.calibration import brier_terms, calibration, curve, expected_error, weighted_mean
from wsi_pipeline.statistics.thresholds import weighted_rates, youden_threshold


def ece(event: np.ndarray, probability: np.ndarray) -> float:
    return float(expected_error(calibration(event, probability), np.ones((1, len(event))))[0])


def test_a_calibrated_model_lies_on_the_diagonal_and_an_overconfident_one_does_not() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(20_000)
    event = rng.random(20_000) < probability
    assert ece(event, probability) < 0.015
    for point in curve(calibration(event, probability)):
        assert point["observed"] == pytest.approx(point["mean_predicted"], abs=0.05)
    extreme = np.where(probability > 0.5, 0.99, 0.01)
    assert ece(event, extreme) == pytest.approx(0.24, abs=0.02)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.99, 1.0])), min_size=1))
def test_bins_hold_everything_once(rows: list[tuple[bool, float]]) -> None:
    event, probability = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = calibration(event, probability)
    points = curve(found)
    assert sum(point["n"] for point in points) == len(rows)
    assert all(point["low"] <= point["mean_predicted"] <= point["high"] for point in points)
    assert sum(point["n"] * point["observed"] for point in points) == pytest.approx(event.sum())
    by_hand = sum(point["n"] * abs(point["observed"] - point["mean_predicted"]) for point in points) / len(rows)
    assert ece(event, probability) == pytest.approx(by_hand, abs=1e-12)


def test_bins_are_of_about_equal_size_and_few_for_few() -> None:
    probability = np.linspace(0.001, 0.999, 1000) ** 4
    assert {point["n"] for point in curve(calibration(np.zeros(1000, bool), probability))} == {100}
    assert len(curve(calibration(np.zeros(25, bool), np.linspace(0, 1, 25)))) == 2
    assert len(curve(calibration(np.zeros(4, bool), np.linspace(0, 1, 4)))) == 1


def test_brier_is_scikit_learns_and_sums_over_more_classes() -> None:
    rng = np.random.default_rng(1)
    truth, p = rng.integers(0, 2, 50), rng.random(50)
    terms = brier_terms(truth, np.stack([1 - p, p], axis=1))
    assert terms.mean() == pytest.approx(brier_score_loss(truth, p))
    three = brier_terms(np.array([0, 1]), np.array([[1.0, 0, 0], [0.5, 0.25, 0.25]]))
    assert three.tolist() == pytest.approx([0, 0.25 + 0.5625 + 0.0625])


def test_weights_count_rows_as_often() -> None:
    rng = np.random.default_rng(2)
    event, probability = rng.random(40) < 0.5, rng.random(40)
    counts = rng.integers(0, 3, 40)
    found = calibration(event, probability)
    rows = np.repeat(np.arange(40), counts)
    gaps = found.probability - found.event
    by_hand = sum(abs(gaps[rows][found.bin[rows] == k].sum()) for k in range(found.n_bins)) / len(rows)
    assert expected_error(found, counts[None].astype(float))[0] == pytest.approx(by_hand)
    assert weighted_mean(gaps, counts[None].astype(float))[0] == pytest.approx(gaps[rows].mean())
    assert np.isnan(weighted_mean(gaps, np.zeros((1, 40)))[0])


def test_the_threshold_separates_where_it_can() -> None:
    positive = np.array([False, False, True, True])
    limit = youden_threshold(positive, np.array([0.1, 0.2, 0.4, 0.9]))
    assert limit == pytest.approx(0.3)
    assert youden_threshold(positive, np.full(4, 0.7)) == 0.7
    assert youden_threshold(np.ones(3, bool), np.arange(3.0)) is None
    assert youden_threshold(np.zeros(0, bool), np.zeros(0)) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8])), min_size=2))
def test_no_threshold_does_better_on_the_slides_that_chose_it(rows: list[tuple[bool, float]]) -> None:
    positive, probability = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    limit = youden_threshold(positive, probability)
    if limit is None:
        assert len(set(positive)) == 1
        return

    def youden(at: float) -> float:
        called = probability >= at
        return called[positive].mean() - called[~positive].mean()

    assert all(youden(limit) >= youden(at) - 1e-12 for at in np.linspace(-0.1, 1.1, 61))


def test_rates_are_those_of_the_counts() -> None:
    positive = np.array([True, True, False, False, False])
    called = np.array([True, False, True, False, False])
    rates = weighted_rates(positive, called, np.array([[1.0, 1, 1, 1, 1], [0, 2, 1, 0, 1], [0, 0, 1, 1, 1]]))
    np.testing.assert_allclose(rates["sensitivity"], [0.5, 0, np.nan])
    np.testing.assert_allclose(rates["specificity"], [2 / 3, 0.5, 2 / 3])
