"""What only a classification reports: metrics of each class, calibration, and the rates at a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.statistics.bootstrap import Floats, Samples, Scored, weighted_metrics
from wsi_pipeline.statistics.calibration import (
    brier_terms,
    calibration_of,
    curve,
    expected_error,
    weighted_mean,
)
from wsi_pipeline.statistics.estimates import Resampler
from wsi_pipeline.statistics.thresholds import FALLBACK, weighted_rates

Json = dict[str, Any]

PER_CLASS = ("auroc", "precision", "recall", "specificity", "f1")


def per_class(
    predictions: pd.DataFrame, scored: Scored, classes: Sequence[str], resampler: Resampler
) -> dict[str, Json]:
    """Each class against the rest: n_slides, n_patients, the metrics, and their intervals under `intervals`.

    scored   the same predictions as arrays

    Predictions of several repeats are pooled. `recall` is sensitivity.
    """

    def weighted(weights: Floats) -> Samples:
        found = weighted_metrics(scored, weights)
        return {f"{name} {k}": found[f"class_{name}"][:, k] for name in PER_CLASS for k in range(len(classes))}

    estimates = resampler.estimates(weighted)
    return {name: _of_class(predictions[scored.truth == k], k, estimates) for k, name in enumerate(classes)}


def _of_class(own: pd.DataFrame, code: int, estimates: dict[str, Json]) -> Json:
    found = {metric: estimates[f"{metric} {code}"] for metric in PER_CLASS}
    return {
        "n_slides": int(own["slide_id"].nunique()),
        "n_patients": int(own["patient_id"].nunique()),
        **{metric: estimate["value"] for metric, estimate in found.items()},
        "intervals": {metric: {k: v for k, v in one.items() if k != "value"} for metric, one in found.items()},
    }


def calibration_json(scored: Scored, classes: Sequence[str], resampler: Resampler) -> Json:
    """Calibration curve (bins), Brier score and ECE: of the second of two classes, else of the predicted class."""
    found, terms = calibration_of(scored), brier_terms(scored.truth, scored.probabilities)
    estimates = resampler.estimates(
        lambda weights: {"brier": weighted_mean(terms, weights), "ece": expected_error(found, weights)}
    )
    return {
        "of": classes[1] if len(classes) == 2 else "the predicted class",
        "bins": curve(found),
        "brier": estimates["brier"],
        "brier_of_chance": float(_brier_of_shares(scored)),
        "ece": estimates["ece"],
    }


def threshold_json(
    predictions: pd.DataFrame, scored: Scored, classes: Sequence[str], facts: Sequence[Json], resampler: Resampler
) -> Json:
    """`{"threshold": ...}` for the second of two classes: each fold's own threshold, applied to its test slides.

    A fold without a threshold (its validation slides are all of one class) uses 0.5. Empty for more classes.
    """
    if len(classes) != 2:
        return {}
    chosen = {(fact["repeat"], fact["fold"]): fact.get("threshold") for fact in facts}
    keys = zip(predictions["repeat"], predictions["fold"], strict=True)
    limits = np.array([FALLBACK if (limit := chosen[key]) is None else limit for key in keys])
    called = scored.probabilities[:, 1] >= limits
    known = [value for value in chosen.values() if value is not None]
    return {
        "threshold": {
            "class": classes[1],
            "value": float(np.median(known)) if known else FALLBACK,
            "value_is": "median of the folds",
            "chosen_on": "validation slides of each fold",
            "rule": "highest sensitivity + specificity",
            "folds_without": len(chosen) - len(known),
            **rates_json(predictions, scored.truth == 1, called, resampler),
        }
    }


def rates_json(
    predictions: pd.DataFrame, positive: NDArray[np.bool_], called: NDArray[np.bool_], resampler: Resampler
) -> Json:
    """Sensitivity and specificity of calls: estimates, each with its number of patients (`n`) and slides."""
    rates = resampler.estimates(lambda weights: weighted_rates(positive, called, weights))
    rows = {"sensitivity": positive, "specificity": ~positive}
    return {name: {**rate, **_counts(predictions, rows[name])} for name, rate in rates.items()}


def _counts(predictions: pd.DataFrame, rows: NDArray[np.bool_]) -> Json:
    """Patients and slides that a rate is computed from."""
    own = predictions[rows]
    return {"n": int(own["patient_id"].nunique()), "n_slides": int(own["slide_id"].nunique())}


def _brier_of_shares(scored: Scored) -> float:
    """The Brier score of always predicting the prevalence of each class."""
    shares = np.bincount(scored.truth, minlength=scored.n_classes) / len(scored.truth)
    constant = np.broadcast_to(shares, scored.probabilities.shape)
    return float(brier_terms(scored.truth, constant).mean())
