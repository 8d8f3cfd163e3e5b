"""The probability from which a slide is called positive: chosen on validation slides, applied to test slides.

The threshold with the highest Youden index (sensitivity + specificity - 1; Youden, Cancer 3:32, 1950), midway between
two neighbouring predictions; of equal ones the nearest to 0.5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FALLBACK = 0.5
"""Used if the validation slides are all of one class."""


def youden_threshold(positive: NDArray[np.bool_], probability: Floats) -> float | None:
    """The threshold for `probability >= threshold`, from validation slides; None unless both classes are present.

    positive     truth of each validation slide (n,)
    probability  of the positive class (n,)
    """
    if positive.all() or not positive.any():
        return None
    values = np.unique(probability)
    candidates = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2])
    called = probability[None, :] >= candidates[:, None]
    youden = called[:, positive].mean(1) - called[:, ~positive].mean(1)
    best = candidates[youden > youden.max() - 1e-12]
    return float(best[np.abs(best - FALLBACK).argmin()])


def weighted_rates(positive: NDArray[np.bool_], called: NDArray[np.bool_], weights: Floats) -> dict[str, Floats]:
    """Sensitivity and specificity, each (R,), with slide j counted weights[r, j] times; NaN without such slides."""
    found = {}
    for name, rows, right in (("sensitivity", positive, called), ("specificity", ~positive, ~called)):
        total = weights[:, rows].sum(1)
        hits = weights[:, rows & right].sum(1)
        found[name] = np.divide(hits, total, out=np.full(len(total), np.nan), where=total > 0)
    return found
