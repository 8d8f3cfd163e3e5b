"""Exclusive classes, two or more: cross-entropy; AUROC and metrics of the most likely class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from wsi_pipeline.cohort.table_words import in_order, label_key
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.task import Codes, Floats, Json, codes_of, column_of, nan_if_none, values_of
from wsi_pipeline.statistics.bootstrap import Scored, weighted_metrics
from wsi_pipeline.statistics.class_metrics import POOLED, chance_values, permuted_auroc, to_scored
from wsi_pipeline.statistics.thresholds import youden_threshold
from wsi_pipeline.wording import listed

if TYPE_CHECKING:
    from wsi_pipeline.mil.training.objectives import Classification

MAX_CLASSES = 1024

_MOST_NUMBERS = 10
"""Most distinct numbers that can be grades; more than this, each on few slides, are measurements."""


@dataclass(frozen=True)
class ClassificationTask:
    """Outcome `label`, one of `classes` (different names, in the order of the outputs).

    Predictions: predicted, p_<class>... (softmax of the outputs). Raises MilError unless the names are 2 or more and
    all different.
    """

    classes: tuple[str, ...]

    name = "classification"
    columns = ("label",)
    headline = POOLED
    relative = False

    def __post_init__(self) -> None:
        names = self.classes
        fine = 2 <= len(names) <= MAX_CLASSES and all(isinstance(name, str) and name for name in names)
        if not fine or len(set(names)) != len(names):
            raise MilError(f"classes must be 2 to {MAX_CLASSES} different names, got {len(names)}")

    @property
    def n_outputs(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def to_json(self) -> Json:
        """`{"name": "classification", "classes": [...]}`."""
        return {"name": self.name, "classes": list(self.classes)}

    def learned(self, table: pd.DataFrame) -> ClassificationTask:
        """This task: every fold has the classes of the whole table."""
        return self

    def strata(self, table: pd.DataFrame) -> Codes:
        """The class of each row."""
        return codes_of(table, self.classes)

    def objective(self, table: pd.DataFrame, spec: MilSpec) -> Classification:
        """Cross-entropy, with the class weights and label smoothing of `spec`."""
        import torch

        from wsi_pipeline.mil.training.objectives import Classification

        labels = torch.from_numpy(self.strata(table))
        smoothing = spec.label_smoothing
        return Classification(labels, self.n_outputs, balanced=spec.class_weights, label_smoothing=smoothing)

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Columns predicted, p_<class>... from logits (B, C)."""
        values = scipy.special.softmax(outputs, axis=1)
        columns: dict[str, Any] = {"predicted": [self.classes[code] for code in values.argmax(1)]}
        return pd.DataFrame({**columns, **{f"p_{name}": values[:, k] for k, name in enumerate(self.classes)}})

    def evaluate(self, predictions: pd.DataFrame) -> ClassEvaluation:
        """See `to_scored`."""
        return ClassEvaluation(to_scored(predictions, self.classes), self.classes)


@dataclass(frozen=True, eq=False)
class ClassEvaluation:
    """Predictions of a classification, class codes by position in `classes`."""

    scored: Scored
    classes: tuple[str, ...]

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows of a mask (n,)."""
        return replace(self, scored=self.scored.take(rows))

    def values(self) -> dict[str, float | None]:
        """AUROC (mean of each class against the rest), balanced accuracy, macro F1, accuracy."""
        return values_of(self, len(self.scored.truth))

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """The same metrics for weights (R, n) of the rows."""
        samples = weighted_metrics(self.scored, weights)
        return {name: samples[name] for name in POOLED}

    def selection(self) -> float:
        """AUROC; NaN if a class has no row."""
        return nan_if_none(self.values()["auroc"])

    def permuted(self) -> Callable[[Codes], float]:
        """AUROC by order, see `permuted_auroc`."""
        return permuted_auroc(self.scored)

    def chance(self) -> dict[str, float]:
        """See `chance_values`."""
        return chance_values(self.scored)

    def details(self) -> Json:
        """`classes`, and `confusion`: rows true class, columns predicted."""
        table = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        np.add.at(table, (self.scored.truth, self.scored.predicted), 1)
        return {"classes": list(self.classes), "confusion": table.tolist()}

    def threshold(self) -> float | None:
        """Youden's threshold of the second of two classes; None for more classes, or if these rows lack one of them."""
        if len(self.classes) != 2:
            return None
        return youden_threshold(self.scored.truth == 1, self.scored.probabilities[:, 1])


def make_classification(table: pd.DataFrame, positive: str | None = None) -> ClassificationTask:
    """The classes of the column `label` in natural order (`grade 2` before `grade 10`).

    positive   which of two classes comes last: threshold, ROC curve and calibration refer to the last one

    Raises MilError for a single class, and for labels that are measurements or identifiers.
    """
    labels = column_of(table, "label").astype(str)
    classes = _positive_last(in_order(labels), positive)
    if len(classes) < 2:
        found = f"every slide has the label {classes[0]}" if classes else "no slide has a label"
        raise MilError(
            f"{found}; training needs at least 2 classes",
            todo="Add slides of another class, or apply a trained model with: wsi-pipeline predict",
        )
    patients = table.assign(label=labels).groupby("label")["patient_id"].nunique()
    if _are_measurements(labels, np.array(patients, dtype=np.int64)):
        raise MilError(
            f"the labels are numbers, {len(classes)} different ones ({listed(classes)})",
            todo="If they are measurements, use --task regression; if they are classes, give them names.",
        )
    if len(classes) > 2 and patients.max() == 1:
        raise MilError(
            f"no two patients share a label ({listed(classes)}): they look like identifiers",
            todo="The column label must hold classes that several patients share.",
        )
    return ClassificationTask(classes)


def _positive_last(classes: tuple[str, ...], positive: str | None) -> tuple[str, ...]:
    """The classes, the positive one last. Raises MilError if it is not among them, or if there are more than two."""
    if positive is None:
        return classes
    named = [name for name in classes if name == positive] or [
        name for name in classes if label_key(name) == label_key(positive)
    ]
    if len(named) != 1:
        raise MilError(
            f"positive must be one of {', '.join(classes)}, got {positive!r}",
            todo="Write the label as it is in the CSV",
        )
    if len(classes) > 2:
        raise MilError(
            f"a positive class needs exactly two classes, got {len(classes)} ({', '.join(classes)})",
            todo="Leave out --positive: each class is measured against the rest",
        )
    return (*(name for name in classes if name != named[0]), *named)


def _are_measurements(labels: pd.Series[str], patients: Codes) -> bool:
    """Whether labels are numbers that no two patients share, or many different ones, most of them of few patients."""
    numbers = pd.to_numeric(labels, errors="coerce")
    if numbers.isna().any() or len(patients) <= 2:
        return False
    return bool(patients.max() == 1 or (len(patients) > _MOST_NUMBERS and np.median(patients) < 3))
