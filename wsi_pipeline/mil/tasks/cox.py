"""Survival by a Cox model: one log risk, trained by the partial likelihood within a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.tasks.outcome import COLUMNS, by_risk, fold_of, outcome_of, some, strata_of
from wsi_pipeline.mil.tasks.task import Codes, Floats, Json, numbers_of, values_of
from wsi_pipeline.mil.training.survival_losses import CoxSurvival
from wsi_pipeline.statistics.survival_metrics import concordance


@dataclass(frozen=True)
class CoxTask:
    """Outcome `time` and `event`; a model's one output is a log risk.

    Predictions: risk, the log of the hazard ratio against a reference that each model has for itself: order
    means something, and differences do, the number alone does not. So only risks of one fold are compared.
    """

    name = "survival"
    n_outputs = 1
    columns = COLUMNS
    headline = ("c_index",)
    classes = ()
    relative = True

    def to_json(self) -> Json:
        """`{"name": "survival", "loss": "cox"}`."""
        return {"name": self.name, "loss": "cox"}

    def learned(self, table: pd.DataFrame) -> CoxTask:
        """This task: nothing is learned from a table."""
        return self

    def objective(self, table: pd.DataFrame, spec: MilSpec) -> CoxSurvival:
        """The partial likelihood. Raises MilError for times and events that are none."""
        time, event = outcome_of(table)
        return CoxSurvival(torch.from_numpy(time), torch.from_numpy(event))

    def strata(self, table: pd.DataFrame) -> Codes:
        """See `strata_of`."""
        return strata_of(table)

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Column risk from outputs (B, 1)."""
        return pd.DataFrame({"risk": outputs[:, 0]})

    def score(self, predictions: pd.DataFrame) -> dict[str, float | None]:
        """Harrell's C over the pairs within a fold."""
        return values_of(self.resampled(predictions, np.ones((1, len(predictions)))))

    def resampled(self, predictions: pd.DataFrame, weights: Floats) -> dict[str, Floats]:
        """The same for weights (R, n) of the rows."""
        time, event = outcome_of(some(predictions))
        risk = numbers_of(predictions, "risk")
        return {"c_index": concordance(time, event, risk, weights, fold_of(predictions))}

    def selection(self, predictions: pd.DataFrame) -> float:
        """Harrell's C; NaN where no two rows can be compared."""
        value = self.score(predictions)["c_index"]
        return float("nan") if value is None else value

    def details(self, predictions: pd.DataFrame) -> Json:
        """`survival`: curves of the patients above and below the median risk of their fold; see `by_risk`."""
        return by_risk(predictions, fold_of(predictions))
