"""Metrics of numbers and of survival against loops, scikit-learn and scipy; a weight of 2 is a row twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from wsi_pipeline.statistics.regression_metrics import regression_metrics, weighted_ranks
from wsi_pipeline.statistics.survival_metrics import concordance, integrated_brier, kaplan_meier, risk_groups

cohorts = st.lists(
    st.tuples(st.integers(1, 8), st.booleans(), st.integers(-3, 3), st.integers(0, 3), st.integers(0, 2)),
    min_size=1,
    max_size=14,
)
Row = tuple[int, bool, int, int, int]


def counted(time: list[float], event: list[bool], risk: list[float], group: list[int] | None) -> float:
    """Harrell's C, pair by pair."""
    right = known = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            first = time[i] < time[j] or (time[i] == time[j] and not event[j])
            if i != j and event[i] and first and (group is None or group[i] == group[j]):
                known += 1
                right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return right / known if known else float("nan")


@settings(deadline=None)
@given(cohorts, st.booleans())
def test_concordance_is_the_share_of_ordered_pairs(rows: list[Row], grouped: bool) -> None:
    time, event, risk, weight, group = (np.array(column) for column in zip(*rows, strict=True))
    weights = np.stack([np.ones(len(rows)), weight]).astype(float)
    arrays = time.astype(float), event.astype(bool), risk.astype(float)
    found = concordance(*arrays, weights, group if grouped else None)
    for counts, value in zip(weights.astype(int), found, strict=True):
        many = [np.repeat(column, counts).tolist() for column in (*arrays, group)]
        expected = counted(many[0], many[1], many[2], many[3] if grouped else None)
        assert value == pytest.approx(expected, nan_ok=True)


def test_concordance_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    time, event, risk = rng.exponential(5, 60), rng.random(60) < 0.6, rng.normal(size=60)
    weights = rng.integers(0, 3, (5, 60)).astype(float)
    whole = concordance(time, event, risk, weights)
    monkeypatch.setattr("wsi_pipeline.statistics.survival_metrics._CELLS", 100)
    np.testing.assert_allclose(concordance(time, event, risk, weights), whole, rtol=1e-12)


def test_perfect_reversed_and_constant_risks() -> None:
    time, event, ones = np.array([1.0, 2, 3, 4]), np.ones(4, bool), np.ones((1, 4))
    assert concordance(time, event, -time, ones) == [1]
    assert concordance(time, event, time, ones) == [0]
    assert concordance(time, event, np.zeros(4), ones) == [0.5]
    assert np.isnan(concordance(time, np.zeros(4, bool), time, ones)).all()


def test_kaplan_meier_by_hand() -> None:
    curve = kaplan_meier(np.array([1.0, 2, 2, 3, 5]), np.array([True, True, False, False, True]))
    assert (curve["n"], curve["events"], curve["times"]) == (5, 3, [1, 2, 3, 5])
    assert curve["survival"] == pytest.approx([0.8, 0.6, 0.6, 0.0])
    assert curve["at_risk"] == [5, 4, 2, 1]
    assert all(low <= s <= high for low, s, high in zip(curve["low"], curve["survival"], curve["high"], strict=True))


def test_logrank_by_hand() -> None:
    """Observed less expected events of one group, squared, over the hypergeometric variance (Mantel 1966)."""
    rng = np.random.default_rng(1)
    time, event, high = rng.integers(1, 9, 40).astype(float), rng.random(40) < 0.7, rng.random(40) < 0.5
    difference = variance = 0.0
    for t in np.unique(time[event]):
        n, n1, d = (time >= t).sum(), ((time >= t) & high).sum(), ((time == t) & event).sum()
        difference += ((time == t) & event & high).sum() - d * n1 / n
        variance += 0 if n == 1 else d * n1 / n * (1 - n1 / n) * (n - d) / (n - 1)
    test = risk_groups(time, event, high)["logrank"]
    assert test["statistic"] == pytest.approx(difference**2 / variance)
    assert test["statistic_is"] == "chi-square, 1 degree of freedom"
    turned = risk_groups(time, event, ~high)["logrank"]
    assert turned["statistic"] == pytest.approx(test["statistic"]), "which group is called high does not matter"
    assert test["p_value"] == pytest.approx(stats.chi2.sf(difference**2 / variance, 1))


def test_groups_that_cannot_be_compared_have_no_test() -> None:
    time = np.array([1.0, 2, 3])
    assert risk_groups(time, np.ones(3, bool), np.zeros(3, bool))["logrank"] is None
    alone = risk_groups(time, np.zeros(3, bool), np.array([True, False, True]))
    assert alone["logrank"] is None
    assert [group["name"] for group in alone["groups"]] == ["low risk", "high risk"]
    assert all(group["survival"] == [1.0] * len(group["times"]) for group in alone["groups"])


def test_brier_without_censoring_is_the_squared_error() -> None:
    rng = np.random.default_rng(2)
    time, edges = rng.integers(1, 12, 30).astype(float), np.array([2.0, 5.0, 9.0])
    survived = rng.random((30, 3))
    errors = ((survived - (time[:, None] > edges)) ** 2).mean(0)
    found = integrated_brier(time, np.ones(30, bool), survived, edges, np.ones((1, 30)))
    assert found == pytest.approx(np.trapezoid([0, *errors], [0, *edges]) / 9)


@settings(deadline=None)
@given(cohorts, st.integers(1, 8))
def test_brier_of_the_estimated_curve_is_that_of_a_coin(rows: list[Row], last: int) -> None:
    """Weighed by the chance to be seen, the rows are a whole cohort again: s (1 - s) for s the Kaplan-Meier curve."""
    time, event = np.array([row[0] for row in rows], float), np.array([row[1] for row in rows])
    if not event.any() or last >= time.max():
        return
    curve = kaplan_meier(time, event)
    s = np.array([1.0, *curve["survival"]])[np.searchsorted(curve["times"], last, side="right")]
    weights = np.stack([np.ones(len(rows)), np.full(len(rows), 3.0)])
    found = integrated_brier(time, event, np.full((len(rows), 1), s), np.array([float(last)]), weights)
    assert found == pytest.approx([s * (1 - s) / 2] * 2, abs=1e-9)


@settings(deadline=None)
@given(cohorts)
def test_brier_with_weights_is_of_repeated_rows(rows: list[Row]) -> None:
    time, event, _, weight, _ = (np.array(column) for column in zip(*rows, strict=True))
    survived = np.random.default_rng(0).random((len(rows), 2))
    edges, every = np.array([3.0, 6.0]), np.repeat(np.arange(len(rows)), weight)
    found = integrated_brier(time.astype(float), event, survived, edges, weight[None].astype(float))
    if len(every) == 0:
        assert np.isnan(found).all()
        return
    ones = np.ones((1, len(every)))
    again = integrated_brier(time[every].astype(float), event[every], survived[every], edges, ones)
    assert found == pytest.approx(again, nan_ok=True)


numbers = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 3)), min_size=1, max_size=14)


@settings(deadline=None)
@given(numbers)
def test_regression_metrics_are_scikit_learns_of_repeated_rows(rows: list[tuple[int, int, int]]) -> None:
    truth, predicted, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    weights = np.stack([np.ones(len(rows)), weight])
    found = regression_metrics(truth, predicted, weights)
    assert set(found) == {"mae", "rmse", "r2", "pearson", "spearman"}
    for r, counts in enumerate(weights.astype(int)):
        x, y = np.repeat(truth, counts), np.repeat(predicted, counts)
        got = {name: values[r] for name, values in found.items()}
        if len(x) == 0:
            assert all(np.isnan(value) for value in got.values())
            continue
        assert got["mae"] == pytest.approx(sk.mean_absolute_error(x, y))
        assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(x, y))
        assert got["r2"] == pytest.approx(sk.r2_score(x, y) if np.ptp(x) else np.nan, nan_ok=True)
        both = np.ptp(x) and np.ptp(y)
        assert got["pearson"] == pytest.approx(stats.pearsonr(x, y)[0] if both else np.nan, nan_ok=True)
        assert got["spearman"] == pytest.approx(stats.spearmanr(x, y)[0] if both else np.nan, nan_ok=True)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=12))
def test_weighted_ranks_are_the_ranks_of_repeated_rows(rows: list[tuple[int, int]]) -> None:
    values, weight = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    ranks = weighted_ranks(values, weight[None].astype(float))[0]
    expected = stats.rankdata(np.repeat(values, weight)) - 0.5
    np.testing.assert_allclose(np.repeat(ranks, weight), expected)
