"""One number of a slide or patient: Huber loss on the standardised target; errors and correlations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.task import Codes, Floats, Json, nan_if_none, numbers_of, quantile_groups, some, values_of
from wsi_pipeline.statistics.regression_metrics import regression_metrics

if TYPE_CHECKING:
    from wsi_pipeline.mil.training.objectives import Regression

_MOST_STRATA, _ROWS_A_STRATUM = 5, 10


@dataclass(frozen=True)
class RegressionTask:
    """Outcome `label`, a number; models learn (label - mean) / sd.

    Predictions: predicted, in the unit of the label. Raises MilError unless mean is finite and sd positive.
    """

    mean: float
    sd: float

    name = "regression"
    n_outputs = 1
    columns = ("label",)
    headline = ("mae", "rmse", "r2", "pearson", "spearman")
    classes = ()
    relative = False

    def __post_init__(self) -> None:
        if not (isfinite(self.mean) and isfinite(self.sd) and self.sd > 0):
            raise MilError(f"mean must be finite and sd positive, got {self.mean} and {self.sd}")

    def to_json(self) -> Json:
        """`{"name": "regression", "mean": number, "sd": number}`."""
        return {"name": self.name, "mean": self.mean, "sd": self.sd}

    def learned(self, table: pd.DataFrame) -> RegressionTask:
        """The task with mean and standard deviation of these rows; if all are equal, the old deviation is kept."""
        values = numbers_of(table, "label")
        sd = float(values.std()) if len(values) else 0.0
        return RegressionTask(float(values.mean()) if len(values) else self.mean, sd if sd > 0 else self.sd)

    def objective(self, table: pd.DataFrame, spec: MilSpec) -> Regression:
        """Huber loss on standardised labels; for a linear model, squared error.

        Raises MilError for labels that are not numbers.
        """
        import torch

        from wsi_pipeline.mil.training.objectives import Regression

        values = torch.from_numpy((numbers_of(table, "label") - self.mean) / self.sd)
        return Regression(values, squared=spec.model == "linear")

    def strata(self, table: pd.DataFrame) -> Codes:
        """Groups of about equal size by rising label: up to 5, of at least 10 rows where there are as many."""
        values = numbers_of(table, "label")
        return quantile_groups(values, int(np.clip(len(values) // _ROWS_A_STRATUM, 1, _MOST_STRATA)))

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Column predicted from outputs (B, 1)."""
        return pd.DataFrame({"predicted": self.mean + self.sd * outputs[:, 0]})

    def evaluate(self, predictions: pd.DataFrame) -> NumberEvaluation:
        """Measured and predicted numbers."""
        return NumberEvaluation(*(numbers_of(some(predictions), column) for column in ("label", "predicted")))


@dataclass(frozen=True, eq=False)
class NumberEvaluation:
    """Measured (`truth`) and predicted numbers, each (n,)."""

    truth: Floats
    predicted: Floats

    def take(self, rows: NDArray[np.bool_]) -> NumberEvaluation:
        """The rows of a mask (n,)."""
        return NumberEvaluation(self.truth[rows], self.predicted[rows])

    def values(self) -> dict[str, float | None]:
        """MAE, RMSE, R squared, Pearson's and Spearman's correlation."""
        return values_of(self, len(self.truth))

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """The same metrics for weights (R, n) of the rows."""
        return regression_metrics(self.truth, self.predicted, weights)

    def selection(self) -> float:
        """The mean absolute error, negative."""
        return -nan_if_none(self.values()["mae"])

    def permuted(self) -> Callable[[Codes], float]:
        """`selection` by order."""
        return lambda order: -float(np.abs(self.truth[order] - self.predicted).mean())

    def chance(self) -> dict[str, float]:
        """Always the median (MAE), or always the mean (the other metrics)."""
        error = float(np.abs(self.truth - np.median(self.truth)).mean())
        return {"mae": error, "rmse": float(self.truth.std()), "r2": 0.0, "pearson": 0.0, "spearman": 0.0}

    def details(self) -> Json:
        """`target`: mean, standard deviation and range of the labels, to compare errors with."""
        truth = self.truth
        facts = {"mean": truth.mean(), "sd": truth.std(), "min": truth.min(), "max": truth.max()}
        return {"target": {name: float(value) for name, value in facts.items()}}


def make_regression(table: pd.DataFrame) -> RegressionTask:
    """Mean and standard deviation of the column `label`.

    Raises MilError naming slide and value if a label is not a number, and if all labels are equal.
    """
    values = numbers_of(table, "label")
    if len(values) == 0:
        raise MilError("no slide has a label", todo="Fill in the column label with numbers and rerun.")
    if values.min() == values.max():
        raise MilError(f"every slide has the label {values[0]:g}; regression needs values that differ")
    return RegressionTask(float(values.mean()), float(values.std()))
