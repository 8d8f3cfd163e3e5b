"""Metrics of a regression: errors, R squared, correlations; for many weightings of the rows at once.

Every metric is a function of how often each row counts, W (R, n): ones give the metric itself, the counts of a
bootstrap its resamples. A weight of 2 is the same as having the row twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def regression_metrics(truth: Floats, predicted: Floats, weights: Floats) -> dict[str, Floats]:
    """MAE, RMSE (in the target's unit), R squared, Pearson's and Spearman's correlation, each (R,).

    truth, predicted   (n,); weights (R, n), not negative

    NaN if undefined: correlations and R squared if the truth (or, for correlations, the prediction) is constant.
    """
    error, total = predicted - truth, weights.sum(1)
    squared = weights @ error**2
    mean = _ratio(weights @ truth, total)
    spread = (weights * (truth - mean[:, None]) ** 2).sum(1)
    spread[_constant(truth, weights)] = 0
    wide = (len(weights), len(truth))
    return {
        "mae": _ratio(weights @ np.abs(error), total),
        "rmse": np.sqrt(_ratio(squared, total)),
        "r2": 1 - _ratio(squared, spread),
        "pearson": _correlation(np.broadcast_to(truth, wide), np.broadcast_to(predicted, wide), weights),
        "spearman": _correlation(weighted_ranks(truth, weights), weighted_ranks(predicted, weights), weights),
    }


def weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks (R, n) of values (n,): the weight below a value and half of that at it."""
    _, code = np.unique(values, return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    at = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: Floats = (at.cumsum(1) - at / 2)[:, code]
    return ranks


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Weighted Pearson correlation of each row, (R,)."""
    total = weights.sum(1, keepdims=True)
    x = x - _ratio((weights * x).sum(1, keepdims=True), total)
    y = y - _ratio((weights * y).sum(1, keepdims=True), total)
    across = (weights * x * y).sum(1)
    within = np.sqrt((weights * x**2).sum(1) * (weights * y**2).sum(1))
    within[_constant(x, weights) | _constant(y, weights)] = 0
    return np.clip(_ratio(across, within), -1, 1)


def _constant(values: Floats, weights: Floats) -> NDArray[np.bool_]:
    """Whether all rows that count have the same value, (R,); unlike a variance, free of rounding errors."""
    wide = np.broadcast_to(values, weights.shape)
    highest = np.where(weights > 0, wide, -np.inf).max(1, initial=-np.inf)
    lowest = np.where(weights > 0, wide, np.inf).min(1, initial=np.inf)
    varies: NDArray[np.bool_] = highest - lowest > 1e-12 * np.maximum(np.abs(highest), np.abs(lowest))
    return ~varies


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where bottom is 0."""
    ratio: Floats = np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)
    return ratio
