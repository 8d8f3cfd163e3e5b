"""Calibration: calibration curve, Brier score, expected calibration error (ECE).

With two classes it is measured on the probability of the second, with more on that of the predicted class. Bins have
about equal numbers of predictions and are fixed before resampling. ECE is the mean distance of the curve from the
diagonal, weighted by bin size (Guo et al. 2017, arXiv 1706.04599; equal-mass bins: Nixon et al. 2019, arXiv
1904.01685); on few slides it is above 0 even for a perfectly calibrated model. Brier score: Brier, Monthly Weather
Review 78:1, 1950.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.statistics.bootstrap import Scored
from wsi_pipeline.statistics.ratios import ratio

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

MOST_BINS, PER_BIN = 10, 10
"""Maximum number of bins, and minimum number of predictions per bin on average."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Events (n,), 0 or 1; predicted probabilities (n,); bin of each prediction (n,); edges of the bins (b + 1,)."""

    event: Floats
    probability: Floats
    bin: Codes
    edges: Floats

    @property
    def n_bins(self) -> int:
        """Number of bins, b; some may be empty if probabilities are tied."""
        return len(self.edges) - 1


def calibration(event: NDArray[np.bool_], probability: Floats) -> Calibration:
    """Sort predictions into bins of about equal size; `event` (n,): whether the predicted event occurred."""
    n_bins = int(np.clip(len(event) // PER_BIN, 1, MOST_BINS))
    inner = np.unique(np.quantile(probability, np.linspace(0, 1, n_bins + 1)[1:-1])) if n_bins > 1 else np.empty(0)
    inner = inner[(inner > 0) & (inner < 1)]
    edges = np.concatenate([[0.0], inner, [1.0]])
    return Calibration(event.astype(np.float64), probability, np.searchsorted(inner, probability, side="right"), edges)


def calibration_of(scored: Scored) -> Calibration:
    """Calibration of the probability of the second of two classes, or else of the predicted class."""
    if scored.n_classes == 2:
        return calibration(scored.truth == 1, scored.probabilities[:, 1])
    confidence = scored.probabilities[np.arange(len(scored.truth)), scored.predicted]
    return calibration(scored.truth == scored.predicted, confidence)


def curve(found: Calibration) -> list[dict[str, float | int]]:
    """Points of the calibration curve: lower and upper edge, mean prediction, observed fraction, n; no empty bins."""
    points: list[dict[str, float | int]] = []
    for k in range(found.n_bins):
        rows = found.bin == k
        if rows.any():
            points.append(
                {
                    "low": float(found.edges[k]),
                    "high": float(found.edges[k + 1]),
                    "mean_predicted": float(found.probability[rows].mean()),
                    "observed": float(found.event[rows].mean()),
                    "n": int(rows.sum()),
                }
            )
    return points


def expected_error(found: Calibration, weights: Floats) -> Floats:
    """ECE (R,) with prediction j counted weights[r, j] times."""
    gaps = np.zeros((len(found.event), found.n_bins))
    gaps[np.arange(len(found.event)), found.bin] = found.probability - found.event
    return ratio(np.abs(weights @ gaps).sum(1), weights.sum(1))


def brier_terms(truth: Codes, probabilities: Floats) -> Floats:
    """Contribution of each prediction to the Brier score, (n,), from classes (n,) and probabilities (n, C).

    Two classes: squared error of the probability of the second, 0 to 1. More: sum of squared errors over all classes,
    0 to 2.
    """
    if probabilities.shape[1] == 2:
        return np.asarray((probabilities[:, 1] - truth) ** 2, np.float64)
    one_hot = np.eye(probabilities.shape[1])[truth]
    return np.asarray(((probabilities - one_hot) ** 2).sum(1), np.float64)


def weighted_mean(terms: Floats, weights: Floats) -> Floats:
    """Mean of the terms (n,) with term j counted weights[r, j] times, (R,); NaN if all weights are 0."""
    return ratio(weights @ terms, weights.sum(1))
