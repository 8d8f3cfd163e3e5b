"""The test against chance: uniform where nothing is there, patients kept whole, equal to its definition."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.mil.synthetic import QUICK
from wsi_pipeline.mil.tasks import Task, make_task
from wsi_pipeline.mil.validation.validation_metrics import SAYS, permutation_json
from wsi_pipeline.statistics.permutation import holm, permutation_p_value, shuffles


def frame(seed: int, n: int = 40, slides: int = 1, signal: float = 0.0) -> pd.DataFrame:
    """Predictions of a classification with one label a patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), slides)
    label = (np.arange(n) % 2)[patient]
    p = 1 / (1 + np.exp(-(signal * (label - 0.5) + rng.normal(size=n)[patient] + 0.1 * rng.normal(size=len(patient)))))
    names = np.array(["normal", "tumour"])
    return pd.DataFrame(
        {
            "slide_id": [f"s{i}" for i in range(len(patient))], "patient_id": [f"p{k}" for k in patient],
            "repeat": 0, "fold": patient % 4, "label": names[label], "predicted": names[(p > 0.5).astype(int)],
            "p_normal": 1 - p, "p_tumour": p,
        }
    )  # fmt: skip


def task_of(table: pd.DataFrame, **spec: str) -> Task:
    return make_task(table, replace(QUICK, **spec))


def permutation_test(table: pd.DataFrame, count: int, seed: int) -> dict[str, object] | None:
    """The test as metrics.json has it."""
    task = task_of(table)
    spec = replace(QUICK, permutations=count, seed=seed)
    return permutation_json(task, table, [task.evaluate(table)], spec, SAYS)


def test_p_is_uniform_where_nothing_is_there() -> None:
    """Slides of a patient look alike; a test that shuffled slides would be fooled far more often."""
    found = []
    for seed in range(150):
        table = frame(seed, n=16, slides=3)
        found.append(permutation_test(table, 99, seed)["p_value"])
    for level in (0.1, 0.3, 0.6):
        assert np.mean(np.array(found) <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 150))


def test_a_signal_is_found_and_the_test_names_its_unit() -> None:
    table = frame(0, signal=3)
    found = permutation_test(table, 999, 0)
    assert found["p_value"] == 0.001
    assert (found["unit"], found["n_patients"], found["n"], found["metric"]) == ("patient", 40, 999, "auroc")
    assert "models are not retrained" in found["says"]


def test_p_is_the_part_of_all_permutations() -> None:
    """Five patients: every permutation counted one by one."""
    outcome, score = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.6, 0.5, 0.7, 0.9])

    def value(order: np.ndarray) -> float:
        return float(score[outcome[order] == 1].sum())

    everything = np.mean([value(np.array(order)) >= value(np.arange(5)) for order in itertools.permutations(range(5))])
    orders = shuffles(np.arange(5), outcome, 4000, 0)
    p_value, n = permutation_p_value(value, orders, 5)
    assert n == 4000
    assert p_value == pytest.approx(everything, abs=0.03)


def test_outcomes_are_dealt_among_patients() -> None:
    patient, outcome = np.array([0, 0, 1, 2, 2, 2]), np.array([1, 1, 0, 0, 0, 0])
    seen = set()
    for order in shuffles(patient, outcome, 50, 0):
        given = outcome[order]
        assert all(len(set(given[patient == p])) == 1 for p in range(3))
        assert sum(given[np.array([0, 2, 3])]) == 1
        seen.add(tuple(given))
    assert len(seen) == 3


def test_patients_with_several_outcomes_change_places_with_their_like() -> None:
    patient, outcome = np.array([0, 1, 1, 2, 2, 3]), np.array([0, 0, 1, 1, 1, 1])
    for order in shuffles(patient, outcome, 50, 0):
        assert sorted(order) == list(range(6))
        assert {order[0], order[5]} == {0, 5}
        assert sorted([tuple(order[1:3]), tuple(order[3:5])]) == [(1, 2), (3, 4)]


def test_a_shuffle_without_a_score_counts_against() -> None:
    values = iter([1.0, np.nan, 0.0, 0.0])
    assert permutation_p_value(lambda order: next(values), iter([np.arange(2)] * 3), 2) == (0.5, 3)


def regression_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=30)
    ids = [f"s{i}" for i in range(30)]
    return pd.DataFrame({"slide_id": ids, "patient_id": ids, "repeat": 0, "fold": 0, "label": truth,
                         "predicted": truth + rng.normal(size=30)})  # fmt: skip


def survival_frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    risk = rng.normal(size=40)
    ids = [f"s{i}" for i in range(40)]
    return pd.DataFrame({"slide_id": ids, "patient_id": ids, "repeat": 0, "fold": np.arange(40) % 3,
                         "time": rng.exponential(np.exp(-risk)) + 0.01, "event": rng.integers(0, 2, 40),
                         "risk": risk})  # fmt: skip


CASES = {
    "two classes": (frame(3, signal=1), {}),
    "regression": (regression_frame(), {"task": "regression"}),
    "discrete": (survival_frame(), {"task": "survival"}),
    "cox": (survival_frame(), {"task": "survival", "survival_loss": "cox"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_fast_score_is_the_tasks_own(name: str) -> None:
    table, settings = CASES[name]
    task = task_of(table, **settings)
    table = table.assign(**dict.fromkeys(getattr(task, "survived", ()), 0.5))
    score = task.evaluate(table).permuted()
    rng = np.random.default_rng(0)
    for order in (np.arange(len(table)), *(rng.permutation(len(table)) for _ in range(5))):
        outcomes = {column: table[column].to_numpy()[order] for column in task.columns}
        assert score(order) == pytest.approx(task.evaluate(table.assign(**outcomes)).selection())


def test_chance_values_are_what_such_guesses_score() -> None:
    table = frame(0).assign(label=["normal"] * 25 + ["tumour"] * 15)
    task = task_of(table)
    found = task.evaluate(table).chance()
    blind = table.assign(predicted="normal", p_normal=0.625, p_tumour=0.375)
    assert task.evaluate(blind).values() == pytest.approx({**found, "balanced_accuracy": 0.5})
    numbers = regression_frame()
    regression = task_of(numbers, task="regression")
    expected = regression.evaluate(numbers).chance()
    median = regression.evaluate(numbers.assign(predicted=numbers["label"].median())).values()
    assert median["mae"] == pytest.approx(expected["mae"])
    mean = regression.evaluate(numbers.assign(predicted=numbers["label"].mean())).values()
    assert (mean["rmse"], mean["r2"]) == pytest.approx((expected["rmse"], expected["r2"]), abs=1e-9)
    survival = task_of(survival_frame(), task="survival", survival_loss="cox")
    assert survival.evaluate(survival_frame()).chance() == {"c_index": 0.5}


def test_no_test_without_shuffles_or_in_large_cohorts() -> None:
    table = frame(0)
    assert permutation_test(table, 0, 0) is None
    large = frame(0, n=302)
    assert permutation_test(large, 10, 0) is None


def test_holm_is_that_of_r() -> None:
    """p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm"), and of one test, of none, and of ties."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.5, 0.5, 0.9]) == [1.0, 1.0, 1.0]
