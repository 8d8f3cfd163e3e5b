"""Decision threshold: chosen on validation slides, applied to test slides.

It maximises the Youden index (sensitivity + specificity - 1; Youden, Cancer 3:32, 1950) and lies midway between two
neighbouring predictions; of tied thresholds the one nearest to 0.5 is used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.statistics.ratios import ratio

Floats = NDArray[np.float64]

FALLBACK = 0.5
"""Threshold if all validation slides are of one class."""


def youden_threshold(positive: NDArray[np.bool_], probability: Floats) -> float | None:
    """The threshold for `probability >= threshold`, from validation slides; None unless both classes are present.

    positive     whether each validation slide is positive (n,)
    probability  predicted probability of the positive class (n,)
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
    pairs = {"sensitivity": (positive, called), "specificity": (~positive, ~called)}
    return {
        name: ratio(weights[:, rows & correct].sum(1), weights[:, rows].sum(1))
        for name, (rows, correct) in pairs.items()
    }
