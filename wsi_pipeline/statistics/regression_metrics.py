"""Metrics of a regression: errors, R squared, correlations; for many weightings of the rows at once.

Metrics are functions of weights W (R, n), how often each row counts: weights of 1 give the metric itself, bootstrap
counts its resamples. A weight of 2 is the same as having the row twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.statistics.ratios import ratio

Floats = NDArray[np.float64]


def regression_metrics(truth: Floats, predicted: Floats, weights: Floats) -> dict[str, Floats]:
    """MAE, RMSE (in the target's unit), R squared, Pearson's and Spearman's correlation, each (R,).

    truth, predicted   (n,); weights (R, n), not negative

    NaN if undefined: correlations and R squared if the truth (or, for correlations, the prediction) is constant.
    """
    error, total = predicted - truth, weights.sum(1)
    squared = weights @ error**2
    mean = ratio(weights @ truth, total)
    spread = (weights * (truth - mean[:, None]) ** 2).sum(1)
    spread[_constant(truth, weights)] = 0
    wide = (len(weights), len(truth))
    return {
        "mae": ratio(weights @ np.abs(error), total),
        "rmse": np.sqrt(ratio(squared, total)),
        "r2": 1 - ratio(squared, spread),
        "pearson": _correlation(np.broadcast_to(truth, wide), np.broadcast_to(predicted, wide), weights),
        "spearman": _correlation(weighted_ranks(truth, weights), weighted_ranks(predicted, weights), weights),
    }


def weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks (R, n) of values (n,): the weight below a value plus half of the weight at it."""
    _, code = np.unique(values, return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    at = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks: Floats = (at.cumsum(1) - at / 2)[:, code]
    return ranks


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Weighted Pearson correlation of each row, (R,)."""
    total = weights.sum(1, keepdims=True)
    x = x - ratio((weights * x).sum(1, keepdims=True), total)
    y = y - ratio((weights * y).sum(1, keepdims=True), total)
    across = (weights * x * y).sum(1)
    within = np.sqrt((weights * x**2).sum(1) * (weights * y**2).sum(1))
    within[_constant(x, weights) | _constant(y, weights)] = 0
    return np.clip(ratio(across, within), -1, 1)


def _constant(values: Floats, weights: Floats) -> NDArray[np.bool_]:
    """Whether all rows with a weight have the same value, (R,); unlike a variance, without rounding errors."""
    wide = np.broadcast_to(values, weights.shape)
    highest = np.where(weights > 0, wide, -np.inf).max(1, initial=-np.inf)
    lowest = np.where(weights > 0, wide, np.inf).min(1, initial=np.inf)
    varies: NDArray[np.bool_] = highest - lowest > 1e-12 * np.maximum(np.abs(highest), np.abs(lowest))
    return ~varies
