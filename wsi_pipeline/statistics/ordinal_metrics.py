"""How good predicted grades are: weighted kappa, mean error in grades; for all weights of the rows at once.

As in `regression_metrics`, a metric is a function of how often each row counts, W (R, n).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def ordinal_metrics(truth: Codes, predicted: Codes, n_grades: int, weights: Floats) -> dict[str, Floats]:
    """Quadratic weighted kappa, mean error in grades and accuracy, each (R,); balanced accuracy too.

    truth, predicted   grade numbers (n,), 0 to n_grades - 1; weights (R, n), not negative

    Kappa (Cohen, Psychol. Bull. 70:213, 1968) is 1 - observed / expected squared difference, where the expected one is
    that of truth and prediction drawn independently from their own frequencies. It is NaN where that is 0: one grade
    only, and it is predicted throughout. Balanced accuracy is NaN where a grade has no row.
    """
    one_of = np.eye(n_grades)
    total = weights.sum(1)
    support, called = weights @ one_of[truth], weights @ one_of[predicted]
    hits = weights @ (one_of[truth] * (truth == predicted)[:, None])
    apart = (np.arange(n_grades)[:, None] - np.arange(n_grades)) ** 2.0
    expected = ((support @ apart) * called).sum(1) / np.where(total > 0, total, 1)
    observed = weights @ (truth - predicted) ** 2.0
    recall = np.divide(hits, support, out=np.full(hits.shape, np.nan), where=support > 0)
    return {
        "quadratic_kappa": 1 - _ratio(observed, expected),
        "grade_error": _ratio(weights @ np.abs(truth - predicted).astype(np.float64), total),
        "balanced_accuracy": recall.mean(1),
        "accuracy": _ratio(hits.sum(1), total),
    }


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, NaN where bottom is 0."""
    ratio: Floats = np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)
    return ratio
