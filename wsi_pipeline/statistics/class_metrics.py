"""Classification measured: prediction tables as arrays, values by scikit-learn, and the JSON of one estimate.

A metric that is undefined (a class without slides, say) is None; no NaN leaves here. AUROC of more than two classes
is the mean of each class against the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from wsi_pipeline.errors import MilError
from wsi_pipeline.statistics.bootstrap import Scored

POOLED = ("auroc", "balanced_accuracy", "macro_f1", "accuracy")

Json = dict[str, Any]


def to_scored(predictions: pd.DataFrame, classes: Sequence[str]) -> Scored:
    """The arrays behind a prediction table. Raises MilError where it does not fit the classes."""
    if len(predictions) == 0:
        raise MilError("there are no predictions to measure")
    codes = {name: code for code, name in enumerate(classes)}
    columns = {}
    for column in ("label", "predicted"):
        found = predictions[column].astype(str).map(codes)
        if found.isna().any():
            strange = predictions.loc[found.isna(), column].iloc[0]
            raise MilError(f"{column} must be one of {', '.join(classes)}, got {strange!r}")
        columns[column] = np.array(found, dtype=np.int64)
    probabilities = predictions[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64)
    if not np.isfinite(probabilities).all():
        raise MilError("predicted probabilities must be finite numbers")
    patient = pd.factorize(predictions["patient_id"].astype(str), sort=True)[0].astype(np.int64)
    return Scored(columns["label"], columns["predicted"], probabilities, patient)


def point_values(scored: Scored) -> dict[str, float | None]:
    """AUROC, balanced accuracy, macro F1 and accuracy over all classes; None where a class has no slide."""
    truth, predicted, every = scored.truth, scored.predicted, range(scored.n_classes)
    values: dict[str, float | None] = dict.fromkeys(POOLED)
    values["accuracy"] = float(sk.accuracy_score(truth, predicted))
    if len(np.unique(truth)) == scored.n_classes:
        values["auroc"] = float(np.mean([sk.roc_auc_score(truth == k, scored.probabilities[:, k]) for k in every]))
        values["balanced_accuracy"] = float(sk.balanced_accuracy_score(truth, predicted))
        values["macro_f1"] = float(sk.f1_score(truth, predicted, labels=every, average="macro", zero_division=0))
    return values
