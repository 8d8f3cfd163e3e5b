"""Classification: a prediction table as arrays, chance levels, AUROC under permutation.

An undefined metric (of a class without slides, say) is None, never NaN. AUROC of more than two classes is the mean of
each class against the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from wsi_pipeline.errors import MetricError
from wsi_pipeline.statistics.bootstrap import Codes, Floats, Scored
from wsi_pipeline.statistics.metric_words import CHANCE_LEVEL
from wsi_pipeline.statistics.ranks import mid_ranks

POOLED = ("auroc", "balanced_accuracy", "macro_f1", "accuracy")

Json = dict[str, Any]


def to_scored(predictions: pd.DataFrame, classes: Sequence[str]) -> Scored:
    """The arrays of a prediction table (label, predicted, p_<class>..., patient_id).

    Labels become codes only here. Raises MetricError for an empty table, for a label or prediction that is not one of
    `classes`, and for probabilities that are not finite.
    """
    if len(predictions) == 0:
        raise MetricError("there are no predictions to measure")
    codes = {name: code for code, name in enumerate(classes)}
    columns = {}
    for column in ("label", "predicted"):
        found = predictions[column].astype(str).map(codes)
        if found.isna().any():
            unknown = predictions.loc[found.isna(), column].iloc[0]
            raise MetricError(f"{column} must be one of {', '.join(classes)}, got {unknown!r}")
        columns[column] = np.array(found, dtype=np.int64)
    probabilities = predictions[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
    if not np.isfinite(probabilities).all():
        raise MetricError("predicted probabilities must be finite numbers")
    patient = pd.factorize(predictions["patient_id"].astype(str), sort=True)[0].astype(np.int64)
    return Scored(columns["label"], columns["predicted"], probabilities, patient)


def chance_values(scored: Scored) -> dict[str, float]:
    """Scores of a guess that ignores the slide: random, or for accuracy and macro F1 always the most common class."""
    share = float(np.bincount(scored.truth).max() / len(scored.truth))
    return {
        "auroc": CHANCE_LEVEL["auroc"],
        "balanced_accuracy": 1 / scored.n_classes,
        "accuracy": share,
        "macro_f1": 2 * share / (1 + share) / scored.n_classes,
    }


def permuted_auroc(scored: Scored) -> Callable[[Codes], float]:
    """AUROC as a function of a permutation of the labels, row numbers (n,); NaN if a class is missing.

    Probabilities are ranked only once, which makes thousands of permutations cheap.
    """
    ranks = mid_ranks(scored.probabilities)
    return lambda order: _mean_auroc(scored.truth[order], ranks)


def _mean_auroc(truth: Codes, ranks: Floats) -> float:
    """Mean one-vs-rest AUROC over the classes, from mid-ranks (n, C)."""
    n, n_classes = ranks.shape
    counts = np.bincount(truth, minlength=n_classes)
    if (counts == 0).any():
        return float("nan")
    sums = ranks[np.arange(n), truth]
    above = np.bincount(truth, weights=sums, minlength=n_classes) - counts * (counts + 1) / 2
    return float((above / (counts * (n - counts))).mean())
