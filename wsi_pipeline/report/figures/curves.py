"""The numbers behind the figures: ROC and precision-recall points, bootstrap bands, outliers of patch counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.statistics.bootstrap import patient_draws

OUTLIER_Z = 3.5
"""Modified z-score above which a count is an outlier (Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers)."""

OUTLIER_FACTOR = 2.0
"""A count within this factor of the median is never an outlier, however similar the other counts are."""

_MIN_SLIDES = 5


@dataclass(frozen=True)
class Curve:
    """Points of an ROC or precision-recall curve: float64 (K,) each, K >= 2, x ascending."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Pointwise interval of a curve at the x values `at`: float64 (K,) each."""

    at: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    resamples: int


def roc_points(
    truth: NDArray[np.bool_], score: NDArray[np.float64], weight: NDArray[np.float64] | None = None
) -> Curve | None:
    """ROC curve of `score` (N,) for `truth` (N,), from (0, 0) to (1, 1); tied scores form one diagonal step.

    None if a class is absent.
    """
    counted = _counts(truth, score, weight)
    if counted is None:
        return None
    positives, negatives = counted
    return Curve(np.append(0.0, negatives / negatives[-1]), np.append(0.0, positives / positives[-1]))


def pr_points(
    truth: NDArray[np.bool_], score: NDArray[np.float64], weight: NDArray[np.float64] | None = None
) -> Curve | None:
    """Precision (y) against recall (x) as a step function: each recall with the precision at its threshold.

    Linear interpolation between thresholds would be too optimistic (Davis, Goadrich 2006, ICML). None if a class is
    absent.
    """
    counted = _counts(truth, score, weight)
    if counted is None:
        return None
    positives, negatives = counted
    kept = positives > 0
    kept[np.flatnonzero(positives == positives[-1])[0] + 1 :] = False  # beyond full recall precision only falls
    recall, precision = positives[kept] / positives[-1], positives[kept] / (positives + negatives)[kept]
    return Curve(np.append(0.0, np.repeat(recall, 2)[:-1]), np.repeat(precision, 2))


def _counts(
    truth: NDArray[np.bool_], score: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Weighted positives and negatives at or above each distinct score, highest first; None if either is absent."""
    order = np.argsort(-score, kind="stable")
    truth, score = truth[order], score[order]
    weight = np.ones(len(score)) if weight is None else weight[order]
    positives, negatives = np.cumsum(weight * truth), np.cumsum(weight * ~truth)
    if len(score) == 0 or positives[-1] == 0 or negatives[-1] == 0:
        return None
    last_of_tie = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    return positives[last_of_tie], negatives[last_of_tie]


def curve_band(
    points: Callable[..., Curve | None],
    truth: NDArray[np.bool_],
    score: NDArray[np.float64],
    patients: NDArray[np.str_],
    *,
    level: float = 0.95,
    resamples: int = 400,
    seed: int = 0,
) -> Band | None:
    """Percentile bootstrap of a curve: patients are drawn with replacement, each with all slides.

    points   `roc_points` or `pr_points`

    Resamples that lack a class are left out; None if that is more than half of them.
    """
    groups, member = np.unique(patients, return_inverse=True)
    if len(groups) < 2:
        return None
    draws = patient_draws(len(groups), resamples, np.random.default_rng(seed))
    at = np.linspace(0.0, 1.0, 101)
    curves = [points(truth, score, draw[member]) for draw in draws]
    heights = [_height_at(curve, at) for curve in curves if curve is not None]
    if 2 * len(heights) < resamples:
        return None
    low, high = np.quantile(np.stack(heights), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(at, low, high, level, len(heights))


def _height_at(curve: Curve, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The curve's y at each x of `at`; at a vertical step that of its last point."""
    left = np.searchsorted(curve.x, at, side="right") - 1
    right = np.minimum(left + 1, len(curve.x) - 1)
    run = curve.x[right] - curve.x[left]
    along = np.divide(at - curve.x[left], run, out=np.zeros_like(at), where=run > 0)
    return np.asarray(curve.y[left] + along * (curve.y[right] - curve.y[left]))


def patch_count_outliers(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which patch counts (N,) are outliers of the cohort: bool (N,).

    An outlier has a modified z-score of the log count above 3.5 (from median and median absolute deviation, or the
    mean absolute deviation if more than half of the counts are equal) and is at least a factor of 2 from the median.
    Slides with 0 patches are empty, not outliers: they are not marked and do not count towards the median. With fewer
    than 5 other slides none is marked.
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
