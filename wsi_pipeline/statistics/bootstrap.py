"""Percentile bootstrap over patients (for patches: over groups), all resamples at once.

A resample draws as many patients as there are, with replacement, each with all their slides, so that a slide counts as
often as its patient was drawn. Every metric is a function of these counts W (R, n), defined as in scikit-learn with
`sample_weight`. With several repeats a metric is the mean over them in every resample: repeats do not add patients.
Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_CELLS = 4_000_000
"""Values of W held at once."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels and predictions of n rows as arrays: mapped to codes once, handed to everything that measures them.

    truth, predicted   class codes (n,)
    probabilities      (n, C)
    patient            codes (n,) of what the bootstrap draws: patients, or groups of patches
    """

    truth: Codes
    predicted: Codes
    probabilities: Floats
    patient: Codes

    @property
    def n_classes(self) -> int:
        """Number of classes, C."""
        return int(self.probabilities.shape[1])

    def take(self, rows: NDArray[np.bool_]) -> Scored:
        """The rows of a mask (n,)."""
        return Scored(self.truth[rows], self.predicted[rows], self.probabilities[rows], self.patient[rows])


@dataclass(frozen=True)
class Interval:
    """Percentiles of the resamples in which a metric was defined; None if it was in none."""

    low: float | None
    high: float | None
    n_undefined: int


Samples = dict[str, Floats]
"""Metric -> its value in each resample, (R,) over all classes or (R, C) per class; NaN where undefined."""

Weighted = Callable[[Floats], Samples]
"""Metrics for weights (R, n) of the rows."""


def bootstrap(scored: Scored, resamples: int, seed: int) -> Samples:
    """The metrics of every resample, named as in `weighted_metrics`: (R,), those of classes (R, C)."""
    number = np.unique(scored.patient, return_inverse=True)[1]
    return bootstrap_mean([(number, partial(weighted_metrics, scored))], resamples, seed)


def bootstrap_mean(parts: Sequence[tuple[Codes, Weighted]], resamples: int, seed: int) -> Samples:
    """Metrics of every resample, averaged over parts (repeats of a validation) that draw the same patients.

    parts   of each the patient codes (n,) of its rows, 0 to P - 1 and the same in all parts, and the function from
            weights (R, n) of its rows to its metrics (R, ...)
    """
    n = 1 + max(int(number.max()) for number, _ in parts)
    widest = max(len(number) for number, _ in parts)
    rng = np.random.default_rng(seed)
    blocks: list[Samples] = []
    for start in range(0, resamples, step := max(1, _CELLS // widest)):
        drawn = patient_draws(n, min(step, resamples - start), rng)
        values = [weighted(drawn[:, number]) for number, weighted in parts]
        blocks.append({name: np.mean([part[name] for part in values], axis=0) for name in values[0]})
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def patient_draws(n: int, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each of n patients is drawn in each resample, (R, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


def interval(samples: Floats, level: float) -> Interval:
    """The central `level` of the defined samples (R,)."""
    defined = samples[~np.isnan(samples)]
    missing = len(samples) - len(defined)
    if len(defined) == 0:
        return Interval(None, None, missing)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), missing)


def weighted_metrics(scored: Scored, weights: Floats) -> Samples:
    """All metrics with slide j counted weights[r, j] times, for every r. Undefined ones are NaN.

    A metric over all classes is undefined if a class has no slide; precision if its class was never predicted.
    """
    one_of = np.eye(scored.n_classes)
    support, predicted = weights @ one_of[scored.truth], weights @ one_of[scored.predicted]
    right = scored.truth == scored.predicted
    hits, total = weights[:, right] @ one_of[scored.truth[right]], weights.sum(1)
    complete = (support > 0).all(1)
    auroc = np.stack([_auroc(scored, weights, k) for k in range(scored.n_classes)], axis=1)
    f1 = _ratio(2 * hits, np.where(support > 0, support + predicted, 0))
    recall = _ratio(hits, support)
    misses = support.sum(1, keepdims=True) - support
    return {
        "auroc": auroc.mean(1),
        "accuracy": _ratio(hits.sum(1), total),
        "balanced_accuracy": np.where(complete, recall.mean(1), np.nan),
        "macro_f1": np.where(complete, f1.mean(1), np.nan),
        "class_auroc": auroc,
        "class_precision": _ratio(hits, predicted),
        "class_recall": recall,
        "class_specificity": _ratio(misses - (predicted - hits), misses),
        "class_f1": f1,
    }


def _auroc(scored: Scored, weights: Floats, positive: int) -> Floats:
    """Area under the ROC curve of one class against the rest, (R,): the weighted Mann-Whitney statistic, ties half."""
    _, rank = np.unique(scored.probabilities[:, positive], return_inverse=True)
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    is_positive = (scored.truth == positive)[order]
    ordered = weights[:, order]
    above = np.add.reduceat(ordered * is_positive, starts, axis=1)
    below = np.add.reduceat(ordered * ~is_positive, starts, axis=1)
    wins = (above * (below.cumsum(1) - below / 2)).sum(1)
    return _ratio(wins, above.sum(1) * below.sum(1))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where bottom is 0."""
    ratio: Floats = np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)
    return ratio
