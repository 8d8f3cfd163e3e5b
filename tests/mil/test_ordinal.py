"""Grades in order: the likelihood against its definition, kappa against scikit-learn, the order of names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from tests.mil.synthetic import QUICK
from wsi_pipeline.cohort.table_words import grades_in_order
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.tasks import make_task
from wsi_pipeline.mil.tasks.ordinal import OrdinalTask, grade_probabilities, median_grade
from wsi_pipeline.mil.trained.checkpoint import load_ensemble, save_ensemble
from wsi_pipeline.mil.trained.inference import predict
from wsi_pipeline.mil.training.objectives import CumulativeLink
from wsi_pipeline.mil.validation.crossval import cross_validate_bags
from wsi_pipeline.mil.validation.external import by_patient
from wsi_pipeline.statistics.ordinal_metrics import ordinal_metrics

ORDINAL = replace(QUICK, task="ordinal", epochs=25)


def test_probabilities_are_differences_of_falling_cumulative_logits() -> None:
    outputs = np.random.default_rng(0).normal(scale=3, size=(50, 3))
    first, second, third = outputs.T
    cuts = [first, first - np.log1p(np.exp(second)), first - np.log1p(np.exp(second)) - np.log1p(np.exp(third))]
    above = [expit(cut) for cut in cuts]
    expected = np.stack([1 - above[0], above[0] - above[1], above[1] - above[2], above[2]], axis=1)
    found = grade_probabilities(outputs)
    assert found == pytest.approx(expected, abs=1e-12)
    assert (found > 0).all()
    assert found.sum(1) == pytest.approx(np.ones(50))


def test_loss_is_the_negative_log_likelihood_and_finite_far_out() -> None:
    outputs = np.random.default_rng(1).normal(scale=2, size=(40, 3))
    labels = np.arange(40) % 4
    loss = CumulativeLink(torch.from_numpy(labels), 4, balanced=False).losses(
        torch.from_numpy(outputs), torch.arange(40)
    )
    expected = -np.log(grade_probabilities(outputs)[np.arange(40), labels])
    assert loss.numpy() == pytest.approx(expected)
    far = torch.tensor([[900.0, -900, 900], [-900, 900, -900]], requires_grad=True)
    losses = CumulativeLink(torch.tensor([1, 3]), 4, balanced=False).losses(far, torch.arange(2))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert far.grad is not None
    assert torch.isfinite(far.grad).all()


def test_balanced_weights_count_every_grade_alike() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = CumulativeLink(labels, 3, balanced=True).bag_weights(torch.arange(6))
    assert torch.stack([weights[labels == grade].sum() for grade in range(3)]).tolist() == pytest.approx([2, 2, 2])
    assert CumulativeLink(labels, 3, balanced=False).bag_weights(torch.arange(6)).tolist() == [1] * 6


def test_metrics_are_scikit_learns_for_any_weights() -> None:
    rng = np.random.default_rng(2)
    truth, predicted = rng.integers(0, 4, 80), rng.integers(0, 4, 80)
    weights = rng.integers(1, 4, (3, 80)).astype(float)
    found = ordinal_metrics(truth, predicted, 4, weights)
    for k, weight in enumerate(weights):
        kappa = cohen_kappa_score(truth, predicted, weights="quadratic", sample_weight=weight)
        assert found["quadratic_kappa"][k] == pytest.approx(kappa)
        assert found["grade_error"][k] == pytest.approx(np.average(np.abs(truth - predicted), weights=weight))
        assert found["accuracy"][k] == pytest.approx(np.average(truth == predicted, weights=weight))
        balanced = balanced_accuracy_score(truth, predicted, sample_weight=weight)
        assert found["balanced_accuracy"][k] == pytest.approx(balanced)
    one = ordinal_metrics(np.zeros(5, np.int64), np.zeros(5, np.int64), 3, np.ones((1, 5)))
    assert np.isnan(one["quadratic_kappa"][0])
    assert np.isnan(one["balanced_accuracy"][0])
    assert one["grade_error"][0] == 0


def test_the_prediction_has_the_smallest_expected_error() -> None:
    p = np.random.default_rng(3).dirichlet(np.ones(5), 200)
    expected = np.stack([(p * np.abs(np.arange(5) - grade)).sum(1) for grade in range(5)], axis=1).argmin(1)
    assert median_grade(p).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["G3", "G1", "G2"], ("G1", "G2", "G3")),
        (["10", "2", "2.5"], ("2", "2.5", "10")),
        (["3+", "1+", "2+"], ("1+", "2+", "3+")),
        (["-1", "1", "0"], ("-1", "0", "1")),
        (["Stage IV", "stage I", "Stage III", "Stage_II"], ("stage I", "Stage_II", "Stage III", "Stage IV")),
        (["IX", "V", "X"], ("V", "IX", "X")),
        (["grade 2", "Grade 1"], ("Grade 1", "grade 2")),
        (["low", "medium", "high"], None),
        (["G1", "G2", "GX"], None),
        (["G1", "T2", "G3"], None),
        (["3+4", "4+3", "3+3"], None),
        (["IIA", "IIB", "I"], None),
        (["1", "1.0", "2"], None),
        (["mild", "severe", "vi"], None),
        ([], None),
    ],
)
def test_order_follows_from_names_or_is_not_guessed(names: list[str], expected: tuple[str, ...] | None) -> None:
    assert grades_in_order(names) == expected


def table_of(labels: list[str]) -> pd.DataFrame:
    names = [f"s{k}" for k in range(len(labels))]
    return pd.DataFrame({"slide_id": names, "patient_id": names, "label": labels})


def test_grades_are_stated_or_follow_from_their_names() -> None:
    words = table_of(["low", "High", "medium"] * 3)
    assert make_task(words, MilSpec(task="ordinal", grades="low, medium, high")) == OrdinalTask(
        ("low", "medium", "High")
    )
    assert make_task(table_of(["10", "9", "2"]), MilSpec(task="ordinal")) == OrdinalTask(("2", "9", "10"))
    for table, spec, message in (
        (words, MilSpec(task="ordinal"), "does not follow from their names"),
        (words, MilSpec(task="ordinal", grades="low,high"), "'medium' too"),
        (words, MilSpec(task="ordinal", grades="low,low,high"), "a name twice"),
        (words, MilSpec(task="ordinal", grades="low,medium,severe,high"), "no slide has 'severe'"),
        (table_of(["1", "2"]), MilSpec(task="ordinal"), "3 or more"),
        (words, MilSpec(grades="low,medium,high"), "has no grades"),
    ):
        with pytest.raises(MilError, match=message):
            make_task(table, spec)


def graded(n: int = 60, seed: int = 0) -> tuple[Bags, pd.DataFrame]:
    """Bags whose grade shows in how many of their instances are shifted."""
    rng = np.random.default_rng(seed)
    grades = np.arange(n) % 4
    arrays = []
    for grade in grades:
        features = rng.normal(size=(24, 8)).astype(np.float32)
        features[: 6 * grade, :4] += 2
        arrays.append(rng.permutation(features))
    table = table_of([f"G{grade + 1}" for grade in grades])
    return Bags.from_arrays(arrays, list(table["slide_id"])), table


def test_cross_validation_saving_and_predicting(tmp_path: Path) -> None:
    bags, table = graded()
    result = cross_validate_bags(bags, table, ORDINAL)
    metrics = result.metrics
    assert metrics["classes"] == ["G1", "G2", "G3", "G4"]
    kappa = metrics["pooled"]["quadratic_kappa"]
    truth = result.predictions["label"].str[1:].astype(int)
    called = result.predictions["predicted"].str[1:].astype(int)
    assert kappa["value"] == pytest.approx(cohen_kappa_score(truth, called, weights="quadratic"))
    assert kappa["low"] < kappa["value"] < kappa["high"] <= 1
    assert kappa["value"] > 0.7
    assert metrics["chance"]["quadratic_kappa"] == 0
    assert metrics["chance"]["grade_error"] == 1
    assert metrics["permutation"]["metric"] == "quadratic_kappa"
    assert metrics["permutation"]["p_value"] < 0.01
    assert "threshold" not in metrics
    save_ensemble(
        tmp_path, [fitted.model for fitted in result.fitted], spec=ORDINAL, task=result.task,
        encoder={"name": "none"}, provenance={},
    )  # fmt: skip
    ensemble = load_ensemble(tmp_path)
    assert ensemble.classes == ("G1", "G2", "G3", "G4")
    found = predict(ensemble, bags)
    p = found[[f"p_{name}" for name in ensemble.classes]].to_numpy()
    assert p.sum(1) == pytest.approx(np.ones(len(bags)))
    assert found["predicted"].tolist() == [ensemble.classes[k] for k in median_grade(p)]
    pairs = table.assign(patient_id=[f"p{k // 8}" for k in range(len(table))]).merge(found, on="slide_id")
    patients, torn = by_patient(ensemble.task, pairs)
    means = pairs.groupby("patient_id", sort=False)[[f"p_{name}" for name in ensemble.classes]].mean().to_numpy()
    assert patients["predicted"].tolist() == [ensemble.classes[k] for k in median_grade(means)]
    assert torn == sorted(f"p{k}" for k in range(8))


def test_noise_has_no_kappa() -> None:
    bags, table = graded()
    labels = np.random.default_rng(5).permutation(table["label"])
    found = cross_validate_bags(bags, table.assign(label=labels), replace(ORDINAL, epochs=8)).metrics
    assert found["pooled"]["quadratic_kappa"]["low"] < 0.1
    assert found["permutation"]["p_value"] > 0.01
