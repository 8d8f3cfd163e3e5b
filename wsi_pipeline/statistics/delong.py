"""DeLong's covariance of correlated areas under the ROC curve, with several slides per patient.

DeLong, DeLong, Clarke-Pearson, Biometrics 44:837, 1988; computed from ranks as in Sun, Xu, IEEE Signal Processing
Letters 21:1389, 2014; with several slides per patient the terms are first summed over each patient, as in
Obuchowski, Biometrics 53:567, 1997. With one slide per patient the two are the same.

The variance is that of sampling other test patients for the same trained models. Variation from training on other
patients is not included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import MetricError
from wsi_pipeline.statistics.ranks import mid_ranks

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Areas:
    """Areas under the ROC curve (m,) of m sets of scores for the same slides, and their covariance (m, m).

    The covariance is NaN if a class has fewer than two patients.
    """

    values: Floats
    covariance: Floats
    n_patients: int


@dataclass(frozen=True)
class Difference:
    """Difference of two areas (second minus first), its interval, and the two-sided p-value."""

    value: float
    low: float | None
    high: float | None
    p_value: float | None


def delong(positive: NDArray[np.bool_], scores: Floats, patient: Codes) -> Areas:
    """Areas of `scores` (m, n); of repeated predictions (m, repeats, n), the mean over the repeats.

    positive   whether each slide is positive (n,)
    patient    code of each slide's patient (n,): slides of one patient are not independent

    Raises MetricError if a class is missing.
    """
    if positive.all() or not positive.any():
        raise MetricError("the area under the ROC curve needs slides of both classes")
    repeated = scores if scores.ndim == 3 else scores[:, None, :]
    placed = [[_placements(positive, row) for row in rows] for rows in repeated]
    above = np.stack([np.mean([pair[0] for pair in pairs], axis=0) for pairs in placed])
    below = np.stack([np.mean([pair[1] for pair in pairs], axis=0) for pairs in placed])
    values: Floats = above.mean(1)
    number = np.unique(patient, return_inverse=True)[1]
    covariance = _clustered(above - values[:, None], below - values[:, None], number[positive], number[~positive])
    return Areas(values, covariance, int(number.max()) + 1)


def difference(areas: Areas, first: int, second: int, level: float = 0.95) -> Difference:
    """Compare two of the areas by the normal approximation; no interval or p-value if the variance is zero."""
    value = float(areas.values[second] - areas.values[first])
    matrix = areas.covariance
    variance = float(matrix[first, first] + matrix[second, second] - 2 * matrix[first, second])
    if not math.isfinite(variance) or variance <= 1e-15:
        return Difference(value, None, None, None)
    error = math.sqrt(variance)
    margin = NormalDist().inv_cdf((1 + level) / 2) * error
    return Difference(value, value - margin, value + margin, math.erfc(abs(value) / error / math.sqrt(2)))


def _placements(positive: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """DeLong's structural components: for each positive the fraction of negatives below it, for each negative the
    fraction of positives above it; ties count half."""
    among_all = mid_ranks(scores)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    wins = among_all[positive] - mid_ranks(scores[positive])
    losses = among_all[~positive] - mid_ranks(scores[~positive])
    return wins / n_negative, 1 - losses / n_positive


def _clustered(above: Floats, below: Floats, of_positive: Codes, of_negative: Codes) -> Floats:
    """Covariance (m, m) from centred components of the positives (m, M) and the negatives (m, N)."""
    n = int(max(of_positive.max(), of_negative.max())) + 1
    summed_above, summed_below = _summed(above, of_positive, n), _summed(below, of_negative, n)
    n_above, n_below = len(np.unique(of_positive)), len(np.unique(of_negative))
    if min(n_above, n_below) < 2:
        return np.full((len(above), len(above)), np.nan)
    m, k = above.shape[1], below.shape[1]
    mixed = summed_above @ summed_below.T
    covariance: Floats = (
        n_above / (n_above - 1) * (summed_above @ summed_above.T) / m**2
        + n_below / (n_below - 1) * (summed_below @ summed_below.T) / k**2
        + n / (n - 1) * (mixed + mixed.T) / (m * k)
    )
    return covariance


def _summed(components: Floats, patient: Codes, n: int) -> Floats:
    """Sums (m, n) of the components (m, k) of each patient."""
    return np.stack([np.bincount(patient, weights=row, minlength=n) for row in components])
