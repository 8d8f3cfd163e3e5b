"""Scores of patches: values are scikit-learn's, intervals are over groups, what is undefined is null with a reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from wsi_pipeline.errors import MetricError
from wsi_pipeline.mil.validation.classification_report import calibration_json
from wsi_pipeline.stages.results.patch_scores import patch_scores
from wsi_pipeline.statistics.class_metrics import to_scored
from wsi_pipeline.statistics.estimates import Resampler

NAMES = ("gland", 'odd "name", <b>', "stroma")


def guesses(
    n: int, classes: int, groups: int, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[str]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n)
    truth[:classes] = np.arange(classes)
    found = rng.dirichlet(np.ones(classes), n) * 0.7 + 0.3 * np.eye(classes)[truth]
    return truth.astype(np.int64), found, [f"patient {k}" for k in rng.integers(0, groups, n)]


def scored(n: int = 200, classes: int = 3, groups: int = 20, seed: int = 0, **more: Any) -> dict[str, Any]:
    truth, found, patients = guesses(n, classes, groups, seed)
    options: dict[str, Any] = {"part": "test", "resamples": 200, **more}
    return patch_scores(truth, found, patients, NAMES[:classes], **options)


def plain_ece(truth: NDArray[np.int64], found: NDArray[np.float64]) -> float:
    """Mean gap over bins of equal numbers of patches (at most ten, ten patches or more each), bin by bin."""
    two = found.shape[1] == 2
    sure, right = (found[:, 1], truth == 1) if two else (found.max(1), found.argmax(1) == truth)
    order, n_bins = np.argsort(sure), min(10, max(1, len(truth) // 10))
    edges = np.quantile(sure, np.linspace(0, 1, n_bins + 1)[1:-1])
    bins = np.searchsorted(edges, sure[order], side="right")
    gaps = [(bins == b).mean() * abs((right[order] - sure[order])[bins == b].mean()) for b in np.unique(bins)]
    return float(sum(gaps))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 3), st.integers(30, 120), st.integers(0, 1000))
def test_values_are_those_of_scikit_learn(classes: int, n: int, seed: int) -> None:
    truth, found, patients = guesses(n, classes, 5, seed)
    result = patch_scores(truth, found, patients, NAMES[:classes], part="test", resamples=100)
    guess = found.argmax(1)
    one_against_rest = [sk.roc_auc_score(truth == k, found[:, k]) for k in range(classes)]
    assert {name: part["value"] for name, part in result["pooled"].items()} == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, guess),
            "macro_f1": sk.f1_score(truth, guess, average="macro"),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, guess),
            "auroc": np.mean(one_against_rest),
            "ece": plain_ece(truth, found),
        }
    )
    assert result["confusion"] == sk.confusion_matrix(truth, guess, labels=range(classes)).tolist()
    for k, name in enumerate(NAMES[:classes]):
        row, own = result["per_class"][name], truth == k
        assert row["recall"] == pytest.approx(sk.recall_score(own, guess == k))
        assert row["f1"] == pytest.approx(sk.f1_score(own, guess == k))
        assert row["precision"] is None or row["precision"] == pytest.approx(sk.precision_score(own, guess == k))
        assert (row["n_patches"], row["n_groups"]) == (own.sum(), len({patients[i] for i in np.flatnonzero(own)}))


def test_every_number_names_its_unit_and_n_and_is_json() -> None:
    result = json.loads(json.dumps(scored(), allow_nan=False))
    assert (result["part"], result["n_patches"], result["n_groups"]) == ("test", 200, 20)
    assert result["interval"] == {
        "level": 0.95,
        "unit": "group",
        "resamples": 200,
        "method": "percentile bootstrap over the groups of the test patches",
    }
    for estimate in result["pooled"].values():
        assert set(estimate) == {"value", "low", "high", "n_undefined"}
        assert estimate["low"] <= estimate["high"]
    assert sum(row["n_patches"] for row in result["per_class"].values()) == 200
    assert list(result["per_class"]) == list(NAMES)


def test_more_patches_of_the_same_groups_add_no_certainty() -> None:
    """Ten copies of every patch in the same groups: the same interval. In groups of their own: far narrower."""
    truth, found, patients = guesses(120, 2, 24)
    widths = []
    for groups in (patients * 10, [f"{name} {copy}" for copy in range(10) for name in patients], patients):
        copies = len(groups) // len(truth)
        result = patch_scores(
            np.tile(truth, copies), np.tile(found, (copies, 1)), groups, NAMES[:2], part="test", resamples=500
        )
        widths.append(result["pooled"]["macro_f1"]["high"] - result["pooled"]["macro_f1"]["low"])
    assert widths[0] == pytest.approx(widths[2])
    assert widths[1] < 0.5 * widths[0]


def test_one_group_has_values_but_no_intervals() -> None:
    result = scored(groups=1)
    assert result["pooled"]["accuracy"]["value"] is not None
    assert all(part["low"] is None and part["high"] is None for part in result["pooled"].values())
    assert all(ends["low"] is None for row in result["per_class"].values() for ends in row["intervals"].values())
    assert result["warnings"] == ["All test patches come from one group: no intervals are reported."]


def test_few_groups_are_said() -> None:
    assert (
        "The validation patches come from only 4 groups: the intervals are imprecise."
        in scored(groups=4, part="validation")["warnings"]
    )
    assert scored(groups=60, n=600)["warnings"] == []


def test_a_class_without_patches_is_null_and_named() -> None:
    truth, found, patients = guesses(60, 3, 12)
    result = patch_scores(np.where(truth == 1, 0, truth), found, patients, NAMES, part="test", resamples=100)
    assert result["pooled"]["macro_f1"]["value"] is None
    assert result["pooled"]["accuracy"]["value"] is not None
    assert result["per_class"][NAMES[1]]["recall"] is None
    assert any(f"No test patch of class {NAMES[1]}" in sentence for sentence in result["warnings"])
    json.dumps(result, allow_nan=False)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(MetricError, match="no patches"):
        patch_scores(np.zeros(0, np.int64), np.zeros((0, 2)), [], NAMES[:2], part="test")
    with pytest.raises(MetricError, match="finite"):
        patch_scores(np.zeros(2, np.int64), np.full((2, 2), np.nan), ["a", "b"], NAMES[:2], part="test")


@pytest.mark.parametrize("classes", [2, 3])
def test_ece_means_the_same_for_patches_and_for_slides(classes: int) -> None:
    truth, found, patients = guesses(150, classes, 150)
    names = ("a", "b", "c")[:classes]
    table = pd.DataFrame(
        {"slide_id": patients, "patient_id": patients, "label": np.array(names)[truth],
         "predicted": np.array(names)[found.argmax(1)], **{f"p_{n}": found[:, k] for k, n in enumerate(names)}}
    )  # fmt: skip
    slides = calibration_json(to_scored(table, names), names, Resampler(table["patient_id"], 100, 0))["ece"]["value"]
    patches = patch_scores(truth, found, patients, names, part="test", resamples=100)
    assert patches["pooled"]["ece"]["value"] == pytest.approx(slides)
    assert patches["ece_bins"] == "up to 10 bins with equal numbers of patches"
