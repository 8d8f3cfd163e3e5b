"""Estimates as in metrics.json: value, bootstrap interval over patients, unit and n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.statistics.bootstrap import Floats, Interval, Samples, Weighted, bootstrap_mean, interval
from wsi_pipeline.statistics.metric_words import metric_words
from wsi_pipeline.wording import listed

LEVEL = 0.95
"""Coverage of every interval."""

Json = dict[str, Any]


def none_if_nan(value: float) -> float | None:
    """The value, or None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)


def estimate_of(value: float | None, samples: Floats) -> Json:
    """A value with the interval from its resamples (R,): `{"value", "low", "high", "n_undefined"}`."""
    return {"value": value, **bounds_of(value, samples)}


def bounds_of(value: float | None, samples: Floats) -> Json:
    """The interval of a value, with null limits if the value itself is undefined."""
    found = interval(samples, LEVEL) if value is not None else Interval(None, None, len(samples))
    return {"low": found.low, "high": found.high, "n_undefined": found.n_undefined}


def width_warnings(estimates: Mapping[str, Json], units: str) -> list[str]:
    """A warning of metrics whose interval has no width, if there are any: without an error there is none to resample.

    units   what was resampled: `22 patients`
    """
    bounds = {name: (found["low"], found["high"]) for name, found in estimates.items() if found["low"] is not None}
    flat = [metric_words(name) for name, (low, high) in bounds.items() if high - low < 1e-12]
    if not flat:
        return []
    return [
        f"Intervals without width ({listed(flat)}): every resample of the {units} scores the same. "
        "Others may still score worse."
    ]


class Resampler:
    """Intervals of several metrics from the same bootstrap draws of patients.

    patient   the patient of each row
    """

    def __init__(self, patient: pd.Series[str], resamples: int, seed: int) -> None:
        self.number = pd.factorize(patient.astype(str), sort=True)[0].astype(np.int64)
        self.n = int(self.number.max()) + 1
        self.resamples, self.seed = resamples, seed

    def samples(self, parts: Sequence[tuple[NDArray[np.bool_], Weighted]]) -> Samples:
        """Resampled metrics, averaged over parts: (rows of the part, function from weights to its metrics)."""
        return bootstrap_mean([(self.number[rows], weighted) for rows, weighted in parts], self.resamples, self.seed)

    def estimate(self, value: float | None, samples: Floats) -> Json:
        """`{"value", "low", "high", "n_undefined", "unit", "n"}`; null limits if there is a single patient."""
        bounds = bounds_of(value if self.n > 1 else None, samples)
        return {"value": value, **bounds, "unit": "patient", "n": self.n}

    def estimates(self, weighted: Weighted) -> dict[str, Json]:
        """Each metric over all rows, with its interval."""
        all_rows = np.ones(len(self.number), bool)
        values = weighted(np.ones((1, len(self.number))))
        samples = self.samples([(all_rows, weighted)])
        return {name: self.estimate(none_if_nan(value[0]), samples[name]) for name, value in values.items()}
