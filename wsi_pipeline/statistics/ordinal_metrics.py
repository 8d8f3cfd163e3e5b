"""Metrics of predicted grades: quadratic weighted kappa, mean error in grades; for many weightings of the rows at once.

As in `regression_metrics`, metrics are functions of weights W (R, n).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.statistics.ratios import ratio

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def ordinal_metrics(truth: Codes, predicted: Codes, n_grades: int, weights: Floats) -> dict[str, Floats]:
    """Quadratic weighted kappa, mean error in grades and accuracy, each (R,); balanced accuracy too.

    truth, predicted   grade numbers (n,), 0 to n_grades - 1; weights (R, n), not negative

    Kappa (Cohen, Psychol. Bull. 70:213, 1968) is 1 - observed / expected squared difference; the expected one is that
    of truth and prediction drawn independently from their own frequencies. Kappa is NaN if it is 0 (a single grade,
    always predicted), balanced accuracy if a grade has no row.
    """
    one_hot = np.eye(n_grades)
    total = weights.sum(1)
    support, called = weights @ one_hot[truth], weights @ one_hot[predicted]
    hits = weights @ (one_hot[truth] * (truth == predicted)[:, None])
    cost = (np.arange(n_grades)[:, None] - np.arange(n_grades)) ** 2.0
    expected = ((support @ cost) * called).sum(1) / np.where(total > 0, total, 1)
    observed = weights @ (truth - predicted) ** 2.0
    recall = ratio(hits, support)
    return {
        "quadratic_kappa": 1 - ratio(observed, expected),
        "grade_error": ratio(weights @ np.abs(truth - predicted).astype(np.float64), total),
        "balanced_accuracy": recall.mean(1),
        "accuracy": ratio(hits.sum(1), total),
    }
