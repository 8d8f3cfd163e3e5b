"""How good out-of-fold predictions are, as the JSON of metrics.json: values by scikit-learn, intervals by bootstrap.

A metric that is undefined (a class without slides, say) is null, and `warnings` says why; no NaN leaves here.
AUROC of more than two classes is the mean of each class against the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bootstrap import Interval, Samples, Scored, bootstrap, interval

LEVEL = 0.95
POOLED = ("auroc", "balanced_accuracy", "macro_f1", "accuracy")
PER_CLASS = ("auroc", "precision", "recall", "specificity", "f1")

Json = dict[str, Any]


def classification_metrics(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    folds: Mapping[int, Json] | None = None,
    warnings: Sequence[str] = (),
    of: str = "pooled out-of-fold predictions",
) -> Json:
    """Metrics of a prediction table (slide_id, patient_id, fold, label, predicted, p_<class>...).

    resamples  of patients with all their slides, for the intervals
    folds      facts of each fold to stand beside its metrics (best_epoch, ...)
    warnings   sentences about the validation, put before those about the metrics
    of         what the predictions are, for the statement of the method

    `recall` is sensitivity. Intervals of the per-class metrics are under `intervals`. Raises MilError for a
    table without rows, or with labels that are no class.
    """
    scored = to_scored(predictions, classes)
    samples = bootstrap(scored, resamples, seed)
    told = list(warnings) + _undefined(scored, classes, "all test slides")
    per_fold, fold_warnings = _per_fold(predictions, classes, folds or {})
    pooled = {name: estimate_of(value, samples[name]) for name, value in point_values(scored).items()}
    return {
        "task": "classification",
        "classes": list(classes),
        "n_slides": len(predictions),
        "n_patients": int(predictions["patient_id"].nunique()),
        "interval": {
            "level": LEVEL,
            "unit": "patient",
            "resamples": resamples,
            "method": f"percentile bootstrap of {of}",
        },
        "pooled": pooled,
        "per_class": _per_class(scored, classes, samples),
        "per_fold": per_fold,
        "confusion": sk.confusion_matrix(scored.truth, scored.predicted, labels=range(len(classes))).tolist(),
        "warnings": told + fold_warnings + _skipped(pooled, resamples),
    }


def to_scored(predictions: pd.DataFrame, classes: Sequence[str]) -> Scored:
    """The arrays behind a prediction table. Raises MilError where it does not fit the classes."""
    if len(predictions) == 0:
        raise MilError("there are no predictions to measure")
    codes = {name: code for code, name in enumerate(classes)}
    columns = {}
    for column in ("label", "predicted"):
        found = predictions[column].astype(str).map(codes)
        if found.isna().any():
            strange = predictions.loc[found.isna(), column].iloc[0]
            raise MilError(f"{column} must be one of {', '.join(classes)}, got {strange!r}")
        columns[column] = np.array(found, dtype=np.int64)
    probabilities = predictions[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
    if not np.isfinite(probabilities).all():
        raise MilError("predicted probabilities must be finite numbers")
    patient = pd.factorize(predictions["patient_id"].astype(str), sort=True)[0].astype(np.int64)
    return Scored(columns["label"], columns["predicted"], probabilities, patient)


def point_values(scored: Scored) -> dict[str, float | None]:
    """AUROC, balanced accuracy, macro F1 and accuracy over all classes; None where a class has no slide."""
    truth, predicted, every = scored.truth, scored.predicted, range(scored.n_classes)
    values: dict[str, float | None] = dict.fromkeys(POOLED)
    values["accuracy"] = float(sk.accuracy_score(truth, predicted))
    if len(np.unique(truth)) == scored.n_classes:
        values["auroc"] = float(np.mean([sk.roc_auc_score(truth == k, scored.probabilities[:, k]) for k in every]))
        values["balanced_accuracy"] = float(sk.balanced_accuracy_score(truth, predicted))
        values["macro_f1"] = float(sk.f1_score(truth, predicted, labels=every, average="macro", zero_division=0))
    return values


def _class_values(scored: Scored, positive: int) -> dict[str, float | None]:
    """One class against the rest; None where a denominator is 0."""
    truth, predicted = scored.truth == positive, scored.predicted == positive
    values: dict[str, float | None] = dict.fromkeys(PER_CLASS)
    if truth.any():
        values["recall"] = float(sk.recall_score(truth, predicted))
        values["f1"] = float(sk.f1_score(truth, predicted, zero_division=0))
    if predicted.any():
        values["precision"] = float(sk.precision_score(truth, predicted))
    if not truth.all():
        values["specificity"] = float(sk.recall_score(~truth, ~predicted))
    if truth.any() and not truth.all():
        values["auroc"] = float(sk.roc_auc_score(truth, scored.probabilities[:, positive]))
    return values


def _per_class(scored: Scored, classes: Sequence[str], samples: Samples) -> dict[str, Json]:
    found = {}
    for code, name in enumerate(classes):
        values = _class_values(scored, code)
        intervals = {metric: bounds_of(values[metric], samples[f"class_{metric}"][:, code]) for metric in PER_CLASS}
        rows = scored.truth == code
        counts = {"n_slides": int(rows.sum()), "n_patients": len(np.unique(scored.patient[rows]))}
        found[name] = {**counts, **values, "intervals": intervals}
    return found


def _per_fold(
    predictions: pd.DataFrame, classes: Sequence[str], facts: Mapping[int, Json]
) -> tuple[list[Json], list[str]]:
    rows, warnings = [], []
    for fold, group in predictions.groupby("fold", sort=True):
        number = int(str(fold))
        scored = to_scored(group, classes)
        counts = {"fold": number, "n_slides": len(group), "n_patients": int(group["patient_id"].nunique())}
        rows.append({**counts, **point_values(scored), **facts.get(number, {})})
        if predictions["fold"].nunique() > 1:
            warnings += _undefined(scored, classes, f"the test slides of fold {number}", per_class=False)
    return rows, warnings


def _undefined(scored: Scored, classes: Sequence[str], where: str, *, per_class: bool = True) -> list[str]:
    """Sentences saying which metrics have no value, and why."""
    absent = [name for code, name in enumerate(classes) if not (scored.truth == code).any()]
    silent = [name for code, name in enumerate(classes) if not (scored.predicted == code).any()]
    told = []
    if absent:
        names = " or ".join(absent)
        told.append(f"No slide of class {names} among {where}: AUROC, balanced accuracy and macro F1 are undefined.")
    if silent and per_class:
        told.append(f"Class {' or '.join(silent)} was never predicted among {where}: its precision is undefined.")
    return told


def _skipped(pooled: Mapping[str, Json], resamples: int) -> list[str]:
    most = max(estimate["n_undefined"] for estimate in pooled.values())
    if most == 0 or pooled["auroc"]["value"] is None:
        return []
    return [f"{most} of {resamples} bootstrap resamples lacked a class and were skipped in the intervals."]


def estimate_of(value: float | None, samples: np.ndarray[Any, np.dtype[np.float64]]) -> Json:
    """A value with its interval, `{"value", "low", "high", "n_undefined"}`, from its resamples (R,)."""
    return {"value": value, **bounds_of(value, samples)}


def bounds_of(value: float | None, samples: np.ndarray[Any, np.dtype[np.float64]]) -> Json:
    """The interval of a value alone; none where the value itself is undefined."""
    found = interval(samples, LEVEL) if value is not None else Interval(None, None, len(samples))
    return {"low": found.low, "high": found.high, "n_undefined": found.n_undefined}
