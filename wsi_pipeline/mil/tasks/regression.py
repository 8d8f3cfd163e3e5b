"""One number of a slide or patient: Huber loss on the standardised target; errors and correlations."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
import pandas as pd
import torch

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.task import Codes, Floats, Json, numbers_of, quantile_groups, values_of
from wsi_pipeline.mil.training.objectives import Regression
from wsi_pipeline.statistics.regression_metrics import regression_metrics

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
        """Mean and standard deviation of the rows given; where all have one value, the spread stays as it is."""
        values = numbers_of(table, "label")
        sd = float(values.std()) if len(values) else 0.0
        return RegressionTask(float(values.mean()) if len(values) else self.mean, sd if sd > 0 else self.sd)

    def objective(self, table: pd.DataFrame, spec: MilSpec) -> Regression:
        """Huber loss of the standardised labels. Raises MilError for labels that are no numbers."""
        return Regression(torch.from_numpy((numbers_of(table, "label") - self.mean) / self.sd))

    def strata(self, table: pd.DataFrame) -> Codes:
        """Groups of about equal size by rising label: up to 5, of at least 10 rows where there are as many."""
        values = numbers_of(table, "label")
        return quantile_groups(values, int(np.clip(len(values) // _ROWS_A_STRATUM, 1, _MOST_STRATA)))

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Column predicted from outputs (B, 1)."""
        return pd.DataFrame({"predicted": self.mean + self.sd * outputs[:, 0]})

    def score(self, predictions: pd.DataFrame) -> dict[str, float | None]:
        """MAE, RMSE, R squared, Pearson's and Spearman's correlation."""
        return values_of(self.resampled(predictions, np.ones((1, len(predictions)))))

    def resampled(self, predictions: pd.DataFrame, weights: Floats) -> dict[str, Floats]:
        """The same metrics for weights (R, n) of the rows."""
        if len(predictions) == 0:
            raise MilError("there are no predictions to measure")
        truth, predicted = (numbers_of(predictions, column) for column in ("label", "predicted"))
        return regression_metrics(truth, predicted, weights)

    def selection(self, predictions: pd.DataFrame) -> float:
        """The mean absolute error, negative."""
        error = self.score(predictions)["mae"]
        return float("nan") if error is None else -error

    def details(self, predictions: pd.DataFrame) -> Json:
        """`target`: mean, standard deviation and range of the labels, beside which errors are read."""
        truth = numbers_of(predictions, "label")
        facts = {"mean": truth.mean(), "sd": truth.std(), "min": truth.min(), "max": truth.max()}
        return {"target": {name: float(value) for name, value in facts.items()}}


def make_regression(table: pd.DataFrame) -> RegressionTask:
    """Mean and standard deviation of the column `label`.

    Raises MilError naming slide and value where a label is no number, and where all labels are one number.
    """
    values = numbers_of(table, "label")
    if len(values) == 0:
        raise MilError("no slide has a label", todo="Fill in the column label with numbers and rerun.")
    if values.min() == values.max():
        raise MilError(f"every slide has the label {values[0]:g}; regression needs values that differ")
    return RegressionTask(float(values.mean()), float(values.std()))
