"""What no knowledge would score, and whether these predictions score better than shuffled outcomes would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from wsi_pipeline.mil.tasks.outcome import fold_of, outcome_of
from wsi_pipeline.mil.tasks.task import Task, codes_of, numbers_of
from wsi_pipeline.statistics.class_metrics import to_scored
from wsi_pipeline.statistics.metric_words import OF_CHANCE
from wsi_pipeline.statistics.ordinal_metrics import ordinal_metrics
from wsi_pipeline.statistics.permutation import permutation_p_value, shuffles
from wsi_pipeline.statistics.survival_metrics import concordance

Json = dict[str, Any]
Codes = NDArray[np.int64]

MOST_PATIENTS = 300
"""The permutation test is for small cohorts; beyond this the interval says as much."""

SAYS = (
    "fraction of label permutations across patients that fit the out-of-fold predictions at least as well as the true "
    "labels do; models are not retrained, and what the predictions rest on (tumour, stain, hospital) is not tested"
)


def chance_values(task: Task, predictions: pd.DataFrame) -> dict[str, float]:
    """The metrics of a guess that never looks at a slide, from the outcomes of the tested rows.

    Classification: a coin (AUROC, balanced accuracy) or always the commonest class (accuracy, macro F1); regression:
    always the median (MAE) or the mean (the others); ordinal: see `_chance_of_grades`; survival: a coin.
    """
    if task.name == "classification":
        share = predictions["label"].astype(str).value_counts(normalize=True).to_numpy(float)
        macro_f1 = 2 * share[0] / (1 + share[0]) / task.n_outputs
        values = (OF_CHANCE["auroc"], 1 / task.n_outputs, float(share[0]), float(macro_f1))
        return dict(zip(("auroc", "balanced_accuracy", "accuracy", "macro_f1"), values, strict=True))
    if task.name == "ordinal":
        return _chance_of_grades(codes_of(predictions, task.classes), len(task.classes))
    if task.name == "regression":
        truth = numbers_of(predictions, "label")
        error = float(np.abs(truth - np.median(truth)).mean())
        return {"mae": error, "rmse": float(truth.std()), "r2": 0.0, "pearson": 0.0, "spearman": 0.0}
    return {"c_index": OF_CHANCE["c_index"]}


def _chance_of_grades(grades: Codes, n: int) -> dict[str, float]:
    """Kappa of any guess that does not look; the median grade always (mean error), or the commonest (accuracy)."""
    share = np.bincount(grades, minlength=n) / len(grades)
    return {
        "quadratic_kappa": OF_CHANCE["quadratic_kappa"],
        "grade_error": float(np.abs(grades - np.median(grades)).mean()),
        "balanced_accuracy": 1 / n,
        "accuracy": float(share.max()),
    }


def permutation_test(task: Task, repeats: Sequence[pd.DataFrame], count: int, seed: int) -> Json | None:
    """The permutation test on what `task.selection` measures, the mean over the repeats; see `mil.permutation`.

    repeats   predictions of each repeat: the same rows in the same order

    None without shuffles, for more than `MOST_PATIENTS` patients, or where the metric is undefined.
    """
    first = repeats[0]
    patient = pd.factorize(first["patient_id"].astype(str))[0].astype(np.int64)
    n = int(patient.max()) + 1
    scorers = [selection_scorer(task, frame) for frame in repeats]
    identity = np.arange(len(first), dtype=np.int64)
    if count == 0 or n > MOST_PATIENTS or any(np.isnan(scorer(identity)) for scorer in scorers):
        return None
    outcome: Codes = np.array(first.groupby(list(task.columns), sort=False).ngroup(), dtype=np.int64)
    orders = shuffles(patient, outcome, count, seed)
    p_value, shuffled = permutation_p_value(
        lambda order: float(np.mean([scorer(order) for scorer in scorers])), orders, len(first)
    )
    return {
        "p_value": p_value, "n": shuffled, "metric": task.headline[0], "unit": "patient", "n_patients": n, "says": SAYS
    }  # fmt: skip


def selection_scorer(task: Task, frame: pd.DataFrame) -> Callable[[Codes], float]:
    """What `task.selection` says when row i has the outcome of row order[i]; fast, for many orders of one frame."""
    if task.name == "classification":
        scored = to_scored(frame, [name.removeprefix("p_") for name in frame.columns if name.startswith("p_")])
        ranks = rankdata(scored.probabilities, axis=0)
        return lambda order: _mean_area(scored.truth[order], ranks)
    if task.name == "ordinal":
        grades, called = (codes_of(frame, task.classes, column) for column in ("label", "predicted"))
        ones, n = np.ones((1, len(frame))), len(task.classes)
        return lambda order: float(ordinal_metrics(grades[order], called, n, ones)["quadratic_kappa"][0])
    if task.name == "regression":
        truth, predicted = numbers_of(frame, "label"), numbers_of(frame, "predicted")
        return lambda order: -float(np.abs(truth[order] - predicted).mean())
    time, event = outcome_of(frame)
    risk, once = numbers_of(frame, "risk"), np.ones((1, len(frame)))
    group = fold_of(frame) if task.relative else None
    return lambda order: float(concordance(time[order], event[order], risk, once, group)[0])


def _mean_area(truth: Codes, ranks: NDArray[np.float64]) -> float:
    """Mean area under the ROC curve of each class against the rest, from mid-ranks (n, C); NaN without a class."""
    n, n_classes = ranks.shape
    counts = np.bincount(truth, minlength=n_classes)
    if (counts == 0).any():
        return float("nan")
    sums = ranks[np.arange(n), truth]
    above = np.bincount(truth, weights=sums, minlength=n_classes) - counts * (counts + 1) / 2
    return float((above / (counts * (n - counts))).mean())
