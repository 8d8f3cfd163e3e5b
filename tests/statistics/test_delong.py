"""DeLong's covariance equals its definition, agrees with simulation, and knows that slides of a patient are alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from wsi_pipeline.errors import MetricError
from wsi_pipeline.statistics.delong import delong, difference


def by_definition(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and covariance by the formulas of the paper of 1988, one kernel value after the other."""
    x, y = scores[:, positive], scores[:, ~positive]
    m, n = x.shape[1], y.shape[1]
    kernel = (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])
    area = kernel.mean((1, 2))
    v10, v01 = kernel.mean(2), kernel.mean(1)
    s10 = (v10 - area[:, None]) @ (v10 - area[:, None]).T / (m - 1)
    s01 = (v01 - area[:, None]) @ (v01 - area[:, None]).T / (n - 1)
    return area, s10 / m + s01 / n


@st.composite
def studies(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Truth with two of each class at least, and two sets of scores with ties."""
    n = draw(st.integers(4, 25))
    positive = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    positive[:2], positive[2:4] = True, False
    scores = draw(st.lists(st.lists(st.integers(0, 6), min_size=n, max_size=n), min_size=2, max_size=2))
    return positive, np.array(scores, float)


@settings(max_examples=80, deadline=None)
@given(studies())
def test_equals_the_definition(study: tuple[np.ndarray, np.ndarray]) -> None:
    positive, scores = study
    found = delong(positive, scores, np.arange(len(positive)))
    area, covariance = by_definition(positive, scores)
    np.testing.assert_allclose(found.values, area, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)
    np.testing.assert_allclose(found.values, [roc_auc_score(positive, row) for row in scores], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(studies(), st.integers(0, 100))
def test_order_and_monotone_scores_change_nothing(study: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    positive, scores = study
    order = np.random.default_rng(seed).permutation(len(positive))
    found = delong(positive, scores, np.arange(len(positive)))
    other = delong(positive[order], np.exp(scores[:, order] / 3), order)
    np.testing.assert_allclose(found.covariance, other.covariance, atol=1e-12)


def test_copies_of_slides_are_no_new_patients() -> None:
    """Each slide three times, as three slides of its patient: the same variance. As patients of their own: a third."""
    rng = np.random.default_rng(0)
    positive = np.arange(40) < 15
    scores = rng.normal(size=(2, 40)) + positive
    once = delong(positive, scores, np.arange(40))
    thrice = delong(np.repeat(positive, 3), np.repeat(scores, 3, axis=1), np.repeat(np.arange(40), 3))
    careless = delong(np.repeat(positive, 3), np.repeat(scores, 3, axis=1), np.arange(120))
    np.testing.assert_allclose(thrice.covariance, once.covariance, rtol=1e-9)
    assert thrice.n_patients == 40
    assert careless.covariance[0, 0] < 0.36 * once.covariance[0, 0]


def test_variance_is_that_of_new_patients() -> None:
    """Simulated studies with correlated slides and mixed labels within patients: the variance is right on average."""
    rng = np.random.default_rng(1)
    areas, variances = [], []
    for _ in range(400):
        patient = np.repeat(np.arange(30), 3)
        positive = rng.random(90) < 0.4
        scores = positive * 1.0 + np.repeat(rng.normal(size=30), 3) + 0.7 * rng.normal(size=90)
        found = delong(positive, scores[None], patient)
        areas.append(found.values[0])
        variances.append(found.covariance[0, 0])
    assert np.mean(variances) == pytest.approx(np.var(areas, ddof=1), rel=0.2)


def test_under_no_difference_p_is_uniform() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(400):
        positive = np.arange(60) < 25
        shared = rng.normal(size=60) + positive
        scores = np.stack([shared + rng.normal(size=60), shared + rng.normal(size=60)])
        found.append(difference(delong(positive, scores, np.arange(60)), 0, 1).p_value)
    p_values = np.array(found, float)
    for level in (0.05, 0.2, 0.5):
        assert (p_values < level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 400))


def test_repeats_are_averaged_not_added() -> None:
    rng = np.random.default_rng(3)
    positive = np.arange(50) < 20
    scores = rng.normal(size=(2, 50)) + positive
    single = delong(positive, scores, np.arange(50))
    repeated = delong(positive, np.repeat(scores[:, None], 4, axis=1), np.arange(50))
    np.testing.assert_allclose(repeated.covariance, single.covariance, rtol=1e-9)
    noisy = np.stack([scores, scores + rng.normal(size=(2, 50))], axis=1)
    found = delong(positive, noisy, np.arange(50))
    expected = [np.mean([roc_auc_score(positive, noisy[k, r]) for r in range(2)]) for k in range(2)]
    np.testing.assert_allclose(found.values, expected)


def test_a_difference_has_sign_interval_and_p() -> None:
    rng = np.random.default_rng(4)
    positive = np.arange(200) < 90
    scores = np.stack([rng.normal(size=200), rng.normal(size=200) + 2 * positive])
    areas = delong(positive, scores, np.arange(200))
    found, other = difference(areas, 0, 1), difference(areas, 1, 0)
    assert found.value > 0.2
    assert found.low > 0
    assert found.p_value < 1e-6
    assert (other.value, other.low, other.high) == (-found.value, -found.high, -found.low)
    assert other.p_value == found.p_value


def test_the_same_scores_have_no_p_value() -> None:
    positive = np.array([True, True, True, False, False, False])
    scores = np.array([[3.0, 1, 2, 0, 1, 2]] * 2)
    found = difference(delong(positive, scores, np.arange(6)), 0, 1)
    assert (found.value, found.low, found.p_value) == (0, None, None)


def test_one_patient_in_a_class_has_no_variance() -> None:
    found = delong(np.array([True, True, False, False]), np.array([[1.0, 2, 0, 1]]), np.array([0, 0, 1, 2]))
    assert np.isnan(found.covariance).all()
    assert difference(delong(np.array([True, False, False]), np.eye(3)[:2], np.arange(3)), 0, 1).p_value is None


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_one_class_is_refused(positive: list[bool]) -> None:
    with pytest.raises(MetricError, match="both classes"):
        delong(np.array(positive), np.zeros((1, 2)), np.arange(2))
