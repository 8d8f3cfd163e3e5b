"""Metrics equal scikit-learn's, intervals those of a plain bootstrap, and what is undefined is null with a reason."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tests.work import calls
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MetricError
from wsi_pipeline.mil.tasks.classification import ClassificationTask
from wsi_pipeline.mil.validation.validation_metrics import validation_metrics
from wsi_pipeline.statistics.bootstrap import Scored, bootstrap, interval, weighted_metrics
from wsi_pipeline.statistics.class_metrics import POOLED, to_scored

NAMES = ["normal", "tumour", "necrotic"]


def predictions(n: int = 60, classes: int = 2, slides: int = 2, skill: float = 1.0, seed: int = 0, ties: int = 0):
    """A prediction table; `ties` rounds the probabilities to that many decimals."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // slides
    truth = patient % classes
    logits = rng.normal(size=(n, classes)) + skill * np.eye(classes)[truth]
    values = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values = values.round(ties) if ties else values
    names = np.array(NAMES)
    table = pd.DataFrame(
        {
            "slide_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{p}" for p in patient],
            "repeat": 0,
            "fold": patient % 5,
            "label": names[truth],
            "predicted": names[values.argmax(1)],
        }
    )
    return table.assign(**{f"p_{NAMES[k]}": values[:, k] for k in range(classes)})


def measured(table: pd.DataFrame, classes: int = 2, resamples: int = 200, warnings: tuple[str, ...] = ()):
    """What metrics.json says of the table."""
    facts = [{"repeat": 0, "fold": k, "best_epoch": k + 1, "threshold": 0.5} for k in map(int, table["fold"].unique())]
    spec = MilSpec(bootstrap=resamples, permutations=0)
    return validation_metrics(ClassificationTask(tuple(NAMES[:classes])), table, facts, spec, warnings, fixed=False)


@pytest.mark.parametrize("classes", [2, 3])
def test_values_are_those_of_scikit_learn(classes: int) -> None:
    table = predictions(60, classes)
    result = measured(table, classes)
    truth, predicted = table["label"], table["predicted"]
    columns = [f"p_{name}" for name in sorted(NAMES[:classes])]
    scores = table["p_tumour"] if classes == 2 else table[columns]
    pooled = {name: part["value"] for name, part in result["pooled"].items()}
    assert pooled == pytest.approx(
        {
            "auroc": sk.roc_auc_score(truth, scores, multi_class="ovr"),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
            "macro_f1": sk.f1_score(truth, predicted, average="macro"),
            "accuracy": sk.accuracy_score(truth, predicted),
        }
    )
    assert result["confusion"] == sk.confusion_matrix(truth, predicted, labels=NAMES[:classes]).tolist()
    report = sk.classification_report(truth, predicted, output_dict=True)
    for name, part in result["per_class"].items():
        assert [part["precision"], part["recall"], part["f1"], part["n_slides"]] == pytest.approx(
            [report[name][key] for key in ("precision", "recall", "f1-score", "support")]
        )
        negatives = truth != name
        assert part["specificity"] == pytest.approx((predicted[negatives] != name).mean())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3), st.integers(0, 10_000), st.sampled_from([0, 1]))
def test_weighted_metrics_are_those_of_the_resampled_slides(classes: int, seed: int, ties: int) -> None:
    """Counting a slide twice is the same as having it twice: checked against scikit-learn on repeated rows."""
    scored = to_scored(predictions(14, classes, seed=seed, ties=ties), NAMES[:classes])
    counts = np.random.default_rng(seed).integers(0, 3, size=(1, 14))
    found = {name: value[0] for name, value in weighted_metrics(scored, counts.astype(float)).items()}
    rows = np.repeat(np.arange(14), counts[0])
    again = Scored(scored.truth[rows], scored.predicted[rows], scored.probabilities[rows], scored.patient[rows])
    if len(rows) == 0:
        assert all(np.isnan(value).all() for value in found.values())
        return
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(again.truth, again.predicted))
    if len(np.unique(again.truth)) < classes:
        assert all(np.isnan(found[name]) for name in POOLED if name != "accuracy")
    else:
        areas = [sk.roc_auc_score(again.truth == k, again.probabilities[:, k]) for k in range(classes)]
        assert found["auroc"] == pytest.approx(np.mean(areas))
        assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(again.truth, again.predicted))
        f1 = sk.f1_score(again.truth, again.predicted, labels=range(classes), average="macro", zero_division=0)
        assert found["macro_f1"] == pytest.approx(f1)
    for k in range(classes):
        truth, predicted = again.truth == k, again.predicted == k
        if truth.any() and not truth.all():
            assert found["class_auroc"][k] == pytest.approx(sk.roc_auc_score(truth, again.probabilities[:, k]))
            assert found["class_recall"][k] == pytest.approx(sk.recall_score(truth, predicted))
            assert found["class_specificity"][k] == pytest.approx(sk.recall_score(~truth, ~predicted))
            assert found["class_f1"][k] == pytest.approx(sk.f1_score(truth, predicted))
        if predicted.any():
            assert found["class_precision"][k] == pytest.approx(sk.precision_score(truth, predicted))


def test_intervals_are_those_of_a_plain_bootstrap_over_patients() -> None:
    table = predictions(80, slides=4)
    scored = to_scored(table, NAMES[:2])
    samples = bootstrap(scored, 4000, seed=0)
    rng = np.random.default_rng(1)
    groups = [np.flatnonzero(scored.patient == p) for p in range(20)]
    plain = []
    for _ in range(1500):
        rows = np.concatenate([groups[p] for p in rng.integers(0, 20, 20)])
        plain.append(sk.roc_auc_score(scored.truth[rows], scored.probabilities[rows, 1]))
    found = interval(samples["auroc"], 0.95)
    np.testing.assert_allclose([found.low, found.high], np.quantile(plain, [0.025, 0.975]), atol=0.02)
    assert found.low < np.mean(plain) < found.high


def test_repeating_slides_of_a_patient_adds_no_certainty() -> None:
    """Ten copies of every slide in the same patients: the same interval. As patients of their own: far narrower."""
    table = predictions(40, slides=1)
    copies = pd.concat([table] * 10, ignore_index=True)
    widths = []
    for each in (table, copies, copies.assign(patient_id=copies.index)):
        estimate = measured(each, resamples=1000)["pooled"]["auroc"]
        widths.append(estimate["high"] - estimate["low"])
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)
    assert widths[2] < 0.5 * widths[0]


def test_block_by_block_is_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = to_scored(predictions(), NAMES[:2])
    whole = bootstrap(scored, 100, seed=3)
    monkeypatch.setattr("wsi_pipeline.statistics.bootstrap._CELLS", 60 * 7)
    parts = bootstrap(scored, 100, seed=3)
    assert all(np.array_equal(whole[name], parts[name], equal_nan=True) for name in whole)


def test_resamples_are_drawn_and_scored_together_not_one_by_one() -> None:
    table = predictions(300, classes=3)
    few, many = (calls(partial(measured, table, 3, resamples=number)) for number in (100, 1000))
    assert many < 2 * few


def test_json_has_the_stated_shape() -> None:
    result = json.loads(json.dumps(measured(predictions(), warnings=("Said before.",)), allow_nan=False))
    facts = ["task", "bag", "classes", "confusion", "n_slides", "n_patients", "interval"]
    parts = ["pooled", "folds", "repeats", "chance", "permutation", "warnings", "per_class", "calibration", "threshold"]
    assert list(result) == [*facts, *parts]
    assert result["interval"] == {
        "level": 0.95,
        "unit": "patient",
        "resamples": 200,
        "method": "percentile bootstrap of pooled out-of-fold predictions",
    }
    assert (result["n_slides"], result["n_patients"]) == (60, 30)
    assert set(result["pooled"]) == {"auroc", "balanced_accuracy", "macro_f1", "accuracy"}
    for estimate in result["pooled"].values():
        assert set(estimate) == {"value", "low", "high", "n_undefined", "unit", "n"}
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert [fold["best_epoch"] for fold in result["folds"]] == [1, 2, 3, 4, 5]
    assert [fold["n_test_patients"] for fold in result["folds"]] == [6] * 5
    assert set(result["folds"][0]["metrics"]) == set(result["pooled"])
    assert result["warnings"] == ["Said before."]


def test_perfect_predictions() -> None:
    result = measured(predictions(skill=50.0))
    best = {"value": 1, "low": 1, "high": 1, "n_undefined": 0, "unit": "patient", "n": 30}
    assert all(part == best for part in result["pooled"].values())
    assert result["warnings"] == [
        "Intervals without width (AUROC, balanced accuracy, macro F1, accuracy): every resample of the 30 patients "
        "scores the same. Others may still score worse."
    ]


def test_an_absent_class_gives_null_and_a_reason() -> None:
    table = predictions(40, skill=50.0).query("label == 'normal'").assign(fold=0)
    result = json.loads(json.dumps(measured(table), allow_nan=False))
    nothing = {"value": None, "low": None, "high": None, "n_undefined": 200, "unit": "patient", "n": 10}
    for name in ("auroc", "balanced_accuracy", "macro_f1"):
        assert result["pooled"][name] == nothing
    assert result["pooled"]["accuracy"]["value"] == 1
    assert result["per_class"]["tumour"]["recall"] is None
    assert result["per_class"]["tumour"]["precision"] is None
    assert result["per_class"]["normal"]["specificity"] is None
    assert result["warnings"] == [
        "Undefined on the test slides: AUROC, balanced accuracy, macro F1 (no slide of class tumour).",
        "Intervals without width (accuracy): every resample of the 10 patients scores the same. "
        "Others may still score worse.",
    ]


def test_a_fold_without_a_class_is_null() -> None:
    table = predictions(60)
    table["fold"] = np.where(table["label"] == "tumour", 0, table["fold"])
    folds = measured(table)["folds"]
    assert [fold["metrics"]["auroc"] is None for fold in folds] == [False, True, True, True, True]
    assert all(fold["metrics"]["accuracy"] is not None for fold in folds)


def test_few_patients_of_a_class_are_reported() -> None:
    table = predictions(60).query("label == 'normal' or patient_id == 'p1'")
    start = "Only 1 patient of class tumour tested: intervals are imprecise"
    assert any(line.startswith(start) and line.endswith("tumour by 1.00.") for line in measured(table)["warnings"])


def test_resamples_without_a_class_are_counted_and_skipped() -> None:
    table = predictions(12, slides=2)
    table["label"] = ["tumour"] * 2 + ["normal"] * 10
    result = measured(table, resamples=1000)
    skipped = result["pooled"]["auroc"]["n_undefined"]
    assert skipped / 1000 == pytest.approx((5 / 6) ** 6, abs=0.05)
    warning = f"{skipped} of 1000 bootstrap resamples lacked a class or were constant and were skipped."
    assert warning in result["warnings"]
    assert result["pooled"]["accuracy"]["n_undefined"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.head(0), "no predictions"),
        (lambda t: t.assign(label="other"), "label must be one of normal, tumour, got 'other'"),
        (lambda t: t.assign(predicted="other"), "predicted must be one of normal, tumour, got 'other'"),
        (lambda t: t.assign(p_tumour=np.nan), "must be finite"),
    ],
)
def test_unfit_tables_are_refused(change, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        to_scored(change(predictions()), NAMES[:2])


def test_labels_become_codes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds, repeats, resamples, classes, calibration, threshold and permutations share one evaluation."""
    table, made = predictions(), []
    monkeypatch.setattr(
        "wsi_pipeline.mil.tasks.classification.to_scored", lambda *given: made.append(to_scored(*given)) or made[0]
    )
    twice = pd.concat([table, table.assign(repeat=1)], ignore_index=True)
    facts = [{"repeat": r, "fold": k, "threshold": 0.5} for r in (0, 1) for k in range(5)]
    task = ClassificationTask(tuple(NAMES[:2]))
    found = validation_metrics(task, twice, facts, MilSpec(bootstrap=100, permutations=9), [], fixed=False)
    assert found["permutation"]["n"] == 9
    assert len(made) == 1
