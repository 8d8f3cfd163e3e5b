"""Metrics of patch predictions as JSON: values, confidence intervals over groups, counts, each with unit and n.

The bootstrap resamples groups (patients, slides, images), never patches: patches of a group are correlated, so
intervals over patches would be far too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import MetricError
from wsi_pipeline.statistics.bootstrap import Floats, Samples, Scored, bootstrap_mean, weighted_metrics
from wsi_pipeline.statistics.calibration import calibration_of, expected_error
from wsi_pipeline.statistics.estimates import LEVEL, bounds_of, estimate_of, none_if_nan, width_warnings
from wsi_pipeline.wording import counted

POOLED = ("accuracy", "macro_f1", "balanced_accuracy", "auroc", "ece")
PER_CLASS = ("precision", "recall", "f1", "auroc")
ECE_BINS = "up to 10 bins with equal numbers of patches"
_FEW_GROUPS = 10

Json = dict[str, Any]


def patch_scores(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    part: str,
    resamples: int = 1000,
    seed: int = 0,
) -> Json:
    """Scores of N patches: labels (N,) class numbers, probabilities (N, C), group of each patch.

    part  which patches these are: `test` or `validation`

    AUROC is the one-vs-rest mean over classes, ece the expected calibration error of `statistics.calibration`.
    Undefined values are null, and `warnings` says why. Raises MetricError without patches or for a probability that is
    not finite.
    """
    scored = _scored(labels, probabilities, groups)
    calibrated = calibration_of(scored)

    def weighted(weights: Floats) -> Samples:
        return {**weighted_metrics(scored, weights), "ece": expected_error(calibrated, weights)}

    values = {name: sample[0] for name, sample in weighted(np.ones((1, len(labels)))).items()}
    n_groups = len(np.unique(scored.patient))
    samples = bootstrap_mean([(scored.patient, weighted)], resamples if n_groups > 1 else 1, seed)
    if n_groups < 2:  # resampling a single group gives no variation
        samples = {name: np.full_like(sample, np.nan) for name, sample in samples.items()}
    pooled = {name: estimate_of(none_if_nan(values[name]), samples[name]) for name in POOLED}
    return {
        "classes": list(classes),
        "part": part,
        "n_patches": len(labels),
        "n_groups": n_groups,
        "interval": {
            "level": LEVEL,
            "unit": "group",
            "resamples": resamples,
            "method": f"percentile bootstrap over the groups of the {part} patches",
        },
        "pooled": pooled,
        "ece_bins": ECE_BINS,
        "per_class": {name: _of_class(scored, code, values, samples) for code, name in enumerate(classes)},
        "confusion": _confusion(scored),
        "warnings": [
            *_warnings(scored, classes, part, n_groups, pooled["auroc"]["n_undefined"], resamples),
            *width_warnings(pooled, counted(n_groups, "group")),
        ],
    }


def _scored(labels: NDArray[np.int64], probabilities: NDArray[np.floating], groups: Sequence[str]) -> Scored:
    values = np.asarray(probabilities, np.float64)
    if len(labels) == 0:
        raise MetricError("there are no patches to measure on")
    if not np.isfinite(values).all():
        raise MetricError("predicted probabilities must be finite numbers", todo="Tune with a lower --learning-rate.")
    number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    return Scored(np.asarray(labels, np.int64), values.argmax(1).astype(np.int64), values, number.astype(np.int64))


def _of_class(scored: Scored, code: int, values: Samples, samples: Samples) -> Json:
    rows = scored.truth == code
    found = {name: none_if_nan(values[f"class_{name}"][code]) for name in PER_CLASS}
    return {
        "n_patches": int(rows.sum()),
        "n_groups": len(np.unique(scored.patient[rows])),
        **found,
        "intervals": {name: bounds_of(found[name], samples[f"class_{name}"][:, code]) for name in PER_CLASS},
    }


def _confusion(scored: Scored) -> list[list[int]]:
    """Patches by true class (rows) and predicted class (columns)."""
    k = scored.n_classes
    counts = np.bincount(scored.truth * k + scored.predicted, minlength=k * k).reshape(k, k)
    return [[int(count) for count in row] for row in counts]


def _warnings(
    scored: Scored, classes: Sequence[str], part: str, n_groups: int, undefined: int, resamples: int
) -> list[str]:
    warnings = []
    present = np.bincount(scored.truth, minlength=len(classes)) > 0
    if not present.all():
        names = " or ".join(name for name, there in zip(classes, present, strict=True) if not there)
        warnings.append(
            f"No {part} patch of class {names}: AUROC, balanced accuracy and macro F1 over all classes are undefined."
        )
    if n_groups < 2:
        warnings.append(f"All {part} patches come from one group: no intervals are reported.")
    elif n_groups < _FEW_GROUPS:
        warnings.append(f"The {part} patches come from only {n_groups} groups: the intervals are imprecise.")
    if undefined and n_groups > 1 and present.all():
        warnings.append(
            f"{undefined} of {resamples} bootstrap resamples lacked a class and were skipped in the intervals."
        )
    return warnings
