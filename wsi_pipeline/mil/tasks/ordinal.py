"""Grades in order: a cumulative link model; quadratic weighted kappa and the mean error in grades."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy

from wsi_pipeline.cohort.table_words import grades_in_order, in_order, label_key
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.classification import MAX_CLASSES, ClassEvaluation
from wsi_pipeline.mil.tasks.task import Codes, Floats, Json, codes_of, column_of, nan_if_none, values_of
from wsi_pipeline.statistics.class_metrics import to_scored
from wsi_pipeline.statistics.metric_words import CHANCE_LEVEL
from wsi_pipeline.statistics.ordinal_metrics import ordinal_metrics
from wsi_pipeline.wording import listed

if TYPE_CHECKING:
    from wsi_pipeline.mil.training.objectives import CumulativeLink


@dataclass(frozen=True)
class OrdinalTask:
    """Outcome `label`, one of `classes`, which are grades from the lowest to the highest.

    The model's outputs o_1 ... o_{K-1} give the cumulative logits, logit P(grade > k) = o_1 - sum_{1 < j <= k}
    softplus(o_j): they fall with k, so every probability is positive (McCullagh, J. R. Stat. Soc. B 42:109, 1980;
    here the distance between two cut points may depend on the slide too).

    Predictions: predicted, p_<grade>... The prediction is the median: the lowest grade at which the cumulative
    probability reaches one half. It has the smallest expected error in grades. Raises MilError for fewer than three
    grades.
    """

    classes: tuple[str, ...]

    name = "ordinal"
    columns = ("label",)
    headline = ("quadratic_kappa", "grade_error", "balanced_accuracy", "accuracy")
    relative = False

    def __post_init__(self) -> None:
        names = self.classes
        fine = 3 <= len(names) <= MAX_CLASSES and all(isinstance(name, str) and name for name in names)
        if not fine or len(set(names)) != len(names):
            raise MilError(f"grades must be 3 to {MAX_CLASSES} different names, got {len(names)}")

    @property
    def n_outputs(self) -> int:
        """Cut points between grades, K - 1."""
        return len(self.classes) - 1

    def to_json(self) -> Json:
        """`{"name": "ordinal", "classes": [...]}`, lowest grade first."""
        return {"name": self.name, "classes": list(self.classes)}

    def learned(self, table: pd.DataFrame) -> OrdinalTask:
        """This task: the grades are those of all rows, whichever a fold trains on."""
        return self

    def strata(self, table: pd.DataFrame) -> Codes:
        """The number of each row's grade, 0 the lowest."""
        return codes_of(table, self.classes)

    def objective(self, table: pd.DataFrame, spec: MilSpec) -> CumulativeLink:
        """The likelihood of the grades, weighted as `spec` asks."""
        import torch

        from wsi_pipeline.mil.training.objectives import CumulativeLink

        return CumulativeLink(torch.from_numpy(self.strata(table)), len(self.classes), balanced=spec.class_weights)

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Columns predicted, p_<grade>... from outputs (B, K - 1)."""
        values = grade_probabilities(outputs)
        predicted = [self.classes[code] for code in median_grade(values)]
        return pd.DataFrame(
            {"predicted": predicted, **{f"p_{name}": values[:, k] for k, name in enumerate(self.classes)}}
        )

    def evaluate(self, predictions: pd.DataFrame) -> GradeEvaluation:
        """See `to_scored`."""
        return GradeEvaluation(to_scored(predictions, self.classes), self.classes)


@dataclass(frozen=True, eq=False)
class GradeEvaluation(ClassEvaluation):
    """Predictions of grades, codes by position in `classes`, 0 the lowest."""

    def values(self) -> dict[str, float | None]:
        """Quadratic weighted kappa, mean error in grades, balanced accuracy, accuracy."""
        return values_of(self, len(self.scored.truth))

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """The same metrics for weights (R, n) of the rows."""
        return ordinal_metrics(self.scored.truth, self.scored.predicted, len(self.classes), weights)

    def selection(self) -> float:
        """The mean error in grades, negative: defined also if all validation rows have one grade."""
        return -nan_if_none(self.values()["grade_error"])

    def permuted(self) -> Callable[[Codes], float]:
        """Quadratic weighted kappa by order."""
        truth, predicted, ones = self.scored.truth, self.scored.predicted, np.ones((1, len(self.scored.truth)))
        n = len(self.classes)
        return lambda order: float(ordinal_metrics(truth[order], predicted, n, ones)["quadratic_kappa"][0])

    def chance(self) -> dict[str, float]:
        """Kappa of a guess that ignores the slide; always the median grade (error), or the most common (accuracy)."""
        grades, n = self.scored.truth, len(self.classes)
        return {
            "quadratic_kappa": CHANCE_LEVEL["quadratic_kappa"],
            "grade_error": float(np.abs(grades - np.median(grades)).mean()),
            "balanced_accuracy": 1 / n,
            "accuracy": float(np.bincount(grades).max() / len(grades)),
        }


def grade_probabilities(outputs: Floats) -> Floats:
    """Probabilities (B, K) of the grades from outputs (B, K - 1); see `OrdinalTask`."""
    first, gaps = outputs[:, :1], np.logaddexp(0, outputs[:, 1:])
    above = scipy.special.expit(np.concatenate([first, first - gaps.cumsum(1)], axis=1))
    one = np.ones((len(outputs), 1))
    found: Floats = np.concatenate([one, above], 1) - np.concatenate([above, 0 * one], 1)
    return found


def median_grade(probabilities: Floats) -> Codes:
    """The lowest grade (B,) at which the cumulative probability (B, K) reaches one half, up to rounding."""
    found: Codes = (probabilities.cumsum(1) >= 0.5 - 1e-9).argmax(1)
    return found


def make_ordinal(table: pd.DataFrame, grades: str | None = None) -> OrdinalTask:
    """The grades of the column `label`, lowest first.

    grades   their order, comma-separated; None: by the one number, arabic or roman, in which their names differ

    Raises MilError if the order does not follow from the names, for a label that `grades` lacks, for a grade that
    no row has, and for fewer than three grades.
    """
    labels = column_of(table, "label").astype(str)
    names = in_order(labels)
    if len(names) < 3:
        raise MilError(
            f"ordinal grades must be 3 or more, got {len(names)}: {listed(names)}",
            todo="Use --task classification",
        )
    if grades is None:
        order = grades_in_order(names)
        if order is None:
            raise MilError(
                f"the order of the grades does not follow from their names ({listed(names, 8)})",
                todo="State it, lowest first, e.g. --grades low,medium,high",
            )
        return OrdinalTask(order)
    return OrdinalTask(_stated(names, [name.strip() for name in grades.split(",")]))


def _stated(names: tuple[str, ...], grades: list[str]) -> tuple[str, ...]:
    """The labels in the order of the grades given, which may differ from them in case or spaces."""
    place: dict[str, Any] = {label_key(grade): k for k, grade in enumerate(grades)}
    if len(place) < len(grades):
        raise MilError(f"grades has a name twice: {', '.join(grades)}")
    strange = [name for name in names if label_key(name) not in place]
    if strange:
        raise MilError(
            f"grades is {', '.join(grades)}; the labels have {listed([repr(name) for name in strange])} too",
            todo="Name every grade in --grades, or empty these labels in the CSV",
        )
    absent = set(place) - {label_key(name) for name in names}
    if absent:
        raise MilError(
            f"no slide has {listed([repr(grade) for grade in grades if label_key(grade) in absent])} of --grades",
            todo="Leave it out; its neighbours then count as one grade apart",
        )
    return tuple(sorted(names, key=lambda name: place[label_key(name)]))
