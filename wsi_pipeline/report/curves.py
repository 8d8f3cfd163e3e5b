"""The numbers behind the figures: ROC points, their band over patients, patch counts out of line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OUTLIER_Z = 3.5
"""Modified z-score above which a count is out of line (Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers)."""

OUTLIER_FACTOR = 2.0
"""A count less than this factor away from the median is never called out of line, however tight the rest lies."""

_MIN_SLIDES = 5


@dataclass(frozen=True)
class Roc:
    """Points of an ROC curve from (0, 0) to (1, 1): float64 (K,) each, K >= 2."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Pointwise interval of the true positive rate at each false positive rate: float64 (K,) each."""

    fpr: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    resamples: int


def roc_points(
    truth: NDArray[np.bool_], score: NDArray[np.float64], weight: NDArray[np.float64] | None = None
) -> Roc | None:
    """ROC of `score` (N,) against `truth` (N,); equal scores make one slanted step. None when a class is absent."""
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order]
    weight = np.ones(len(score)) if weight is None else weight[order]
    positives, negatives = np.cumsum(weight * truth), np.cumsum(weight * ~truth)
    if len(score) == 0 or positives[-1] == 0 or negatives[-1] == 0:
        return None
    last_of_tie = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    return Roc(
        np.append(0.0, negatives[last_of_tie] / negatives[-1]), np.append(0.0, positives[last_of_tie] / positives[-1])
    )


def roc_band(
    truth: NDArray[np.bool_],
    score: NDArray[np.float64],
    patients: NDArray[np.str_],
    *,
    level: float = 0.95,
    resamples: int = 400,
    seed: int = 0,
) -> Band | None:
    """Percentile bootstrap of the ROC, patients drawn with replacement and all their slides with them.

    Resamples that miss a class are left out; None when more than half of them do.
    """
    groups, member = np.unique(patients, return_inverse=True)
    if len(groups) < 2:
        return None
    draws = np.random.default_rng(seed).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
    at = np.linspace(0.0, 1.0, 101)
    curves = [roc_points(truth, score, draw[member].astype(np.float64)) for draw in draws]
    heights = [_tpr_at(curve, at) for curve in curves if curve is not None]
    if 2 * len(heights) < resamples:
        return None
    low, high = np.quantile(np.stack(heights), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(at, low, high, level, len(heights))


def _tpr_at(roc: Roc, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the curve at each false positive rate; at a vertical step its upper end."""
    left = np.searchsorted(roc.fpr, at, side="right") - 1
    right = np.minimum(left + 1, len(roc.fpr) - 1)
    run = roc.fpr[right] - roc.fpr[left]
    along = np.divide(at - roc.fpr[left], run, out=np.zeros_like(at), where=run > 0)
    return roc.tpr[left] + along * (roc.tpr[right] - roc.tpr[left])


def patch_count_outliers(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which patch counts (N,) are out of line with the cohort: bool (N,).

    Modified z-score on log counts (median and median absolute deviation; the mean absolute deviation where more
    than half the counts are equal) above 3.5, and at least a factor of 2 from the median. Slides with 0 patches
    are empty, not outliers: they are neither marked nor part of the median. Fewer than 5 others: none is marked.
    """
    marked = np.zeros(len(counts), np.bool_)
    filled = counts > 0
    if np.count_nonzero(filled) < _MIN_SLIDES:
        return marked
    logs = np.log(counts[filled].astype(np.float64))
    away = np.abs(logs - np.median(logs))
    spread = 1.4826 * float(np.median(away)) or 1.2533 * float(np.mean(away))
    marked[filled] = (away > OUTLIER_Z * spread) & (away >= np.log(OUTLIER_FACTOR))
    return marked
