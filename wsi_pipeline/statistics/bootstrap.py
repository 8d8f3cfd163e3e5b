"""Percentile bootstrap over patients (for patches: over groups), all resamples at once.

A resample draws as many patients as there are, with replacement, each with all their slides: a slide counts as often as
its patient was drawn. Metrics are functions of these counts W (R, n), defined as in scikit-learn with `sample_weight`.
With several repeats a metric is averaged over them within each resample: repeats do not add patients.
Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.statistics.ratios import ratio

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_CELLS = 4_000_000
"""Most elements of W in memory at a time."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels and predictions of n rows as arrays, encoded once and passed to every metric.

    truth, predicted   class codes (n,)
    probabilities      (n, C)
    patient            codes (n,) of the units that the bootstrap draws: patients, or groups of patches
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
        """The rows selected by a mask (n,)."""
        return Scored(self.truth[rows], self.predicted[rows], self.probabilities[rows], self.patient[rows])


@dataclass(frozen=True)
class Interval:
    """Percentiles over the resamples in which a metric is defined; None if there are none."""

    low: float | None
    high: float | None
    n_undefined: int


Samples = dict[str, Floats]
"""Metric -> value in each resample, (R,) over all classes or (R, C) per class; NaN if undefined."""

Weighted = Callable[[Floats], Samples]
"""Function from weights (R, n) of the rows to metrics."""


def bootstrap(scored: Scored, resamples: int, seed: int) -> Samples:
    """The metrics of every resample, named as in `weighted_metrics`: (R,), per class (R, C)."""
    number = np.unique(scored.patient, return_inverse=True)[1]
    return bootstrap_mean([(number, partial(weighted_metrics, scored))], resamples, seed)


def bootstrap_mean(parts: Sequence[tuple[Codes, Weighted]], resamples: int, seed: int) -> Samples:
    """Metrics of every resample, averaged over parts (repeats of a validation) that share the drawn patients.

    parts   for each part: the patient codes (n,) of its rows, 0 to P - 1, the same in all parts; and the function from
            weights (R, n) of its rows to metrics (R, ...)
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
    """The central `level` of the samples (R,) that are not NaN."""
    defined = samples[~np.isnan(samples)]
    missing = len(samples) - len(defined)
    if len(defined) == 0:
        return Interval(None, None, missing)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), missing)


def weighted_metrics(scored: Scored, weights: Floats) -> Samples:
    """All metrics with slide j counted weights[r, j] times, for every r; NaN if undefined.

    A metric over all classes is undefined if a class has no slide, precision if the class is never predicted.
    """
    one_hot = np.eye(scored.n_classes)
    support, predicted = weights @ one_hot[scored.truth], weights @ one_hot[scored.predicted]
    correct = scored.truth == scored.predicted
    hits, total = weights[:, correct] @ one_hot[scored.truth[correct]], weights.sum(1)
    complete = (support > 0).all(1)
    auroc = np.stack([_auroc(scored, weights, k) for k in range(scored.n_classes)], axis=1)
    f1 = ratio(2 * hits, np.where(support > 0, support + predicted, 0))
    recall = ratio(hits, support)
    negatives = support.sum(1, keepdims=True) - support
    return {
        "auroc": auroc.mean(1),
        "accuracy": ratio(hits.sum(1), total),
        "balanced_accuracy": np.where(complete, recall.mean(1), np.nan),
        "macro_f1": np.where(complete, f1.mean(1), np.nan),
        "class_auroc": auroc,
        "class_precision": ratio(hits, predicted),
        "class_recall": recall,
        "class_specificity": ratio(negatives - (predicted - hits), negatives),
        "class_f1": f1,
    }


def _auroc(scored: Scored, weights: Floats, positive: int) -> Floats:
    """One-vs-rest AUROC of a class, (R,): the weighted Mann-Whitney statistic, ties counting half."""
    _, rank = np.unique(scored.probabilities[:, positive], return_inverse=True)
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    is_positive = (scored.truth == positive)[order]
    ordered = weights[:, order]
    above = np.add.reduceat(ordered * is_positive, starts, axis=1)
    below = np.add.reduceat(ordered * ~is_positive, starts, axis=1)
    wins = (above * (below.cumsum(1) - below / 2)).sum(1)
    return ratio(wins, above.sum(1) * below.sum(1))
