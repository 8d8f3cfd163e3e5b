"""Survival by the hazards of a few intervals of time."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.outcome import COLUMNS, by_risk, outcome_of, some, strata_of
from wsi_pipeline.mil.tasks.task import Codes, Floats, Json, numbers_of, values_of
from wsi_pipeline.mil.training.survival_losses import DiscreteSurvival
from wsi_pipeline.statistics.survival_metrics import concordance, integrated_brier

MAX_EDGES = 1000


@dataclass(frozen=True)
class DiscreteTask:
    """Outcome `time` and `event`; output k is the logit of the hazard in the interval that ends at `edges[k]`.

    Predictions: risk, the time that is expected to be lost before the last edge (in the unit of `time`; Royston and
    Parmar 2013), and p_survived_<t> for each edge t. Raises MilError unless edges are positive and rising.
    """

    edges: tuple[float, ...]

    name = "survival"
    columns = COLUMNS
    headline = ("c_index",)
    classes = ()
    relative = False

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0.0, *self.edges), self.edges, strict=False))
        if not (1 <= len(self.edges) <= MAX_EDGES and rising and isfinite(self.edges[-1])):
            raise MilError(f"edges must be 1 to {MAX_EDGES} positive, rising, finite times, got {len(self.edges)}")

    @property
    def n_outputs(self) -> int:
        """Number of intervals."""
        return len(self.edges)

    def to_json(self) -> Json:
        """`{"name": "survival", "loss": "discrete", "edges": [...]}`."""
        return {"name": self.name, "loss": "discrete", "edges": list(self.edges)}

    def learned(self, table: pd.DataFrame) -> DiscreteTask:
        """This task: its intervals are the times at which survival is asked for, the same in every fold."""
        return self

    def objective(self, table: pd.DataFrame, spec: MilSpec) -> DiscreteSurvival:
        """The likelihood of the hazards. Raises MilError for times and events that are none."""
        time, event = outcome_of(table)
        edges = torch.tensor(self.edges, dtype=torch.float64)
        return DiscreteSurvival(torch.from_numpy(time), torch.from_numpy(event), edges)

    def strata(self, table: pd.DataFrame) -> Codes:
        """See `strata_of`."""
        return strata_of(table)

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Columns risk, p_survived_<t>... from the logits of the hazards (B, K)."""
        survived = np.cumprod(expit(-outputs), axis=1)
        before = np.concatenate([np.ones((len(outputs), 1)), survived[:, :-1]], axis=1)
        widths = np.diff(self.edges, prepend=0.0)
        lost = self.edges[-1] - ((before + survived) / 2) @ widths
        return pd.DataFrame({"risk": lost, **{name: survived[:, k] for k, name in enumerate(self.survived)}})

    @property
    def survived(self) -> tuple[str, ...]:
        """The columns p_survived_<t>, one for each edge."""
        return tuple(f"p_survived_{repr(float(edge)).removesuffix('.0')}" for edge in self.edges)

    def score(self, predictions: pd.DataFrame) -> dict[str, float | None]:
        """Harrell's C; the integrated Brier score of the predicted survival."""
        return values_of(self.resampled(predictions, np.ones((1, len(predictions)))))

    def resampled(self, predictions: pd.DataFrame, weights: Floats) -> dict[str, Floats]:
        """The same for weights (R, n) of the rows."""
        time, event = outcome_of(some(predictions))
        survived = np.stack([numbers_of(predictions, name) for name in self.survived], axis=1)
        return {
            "c_index": concordance(time, event, numbers_of(predictions, "risk"), weights),
            "integrated_brier": integrated_brier(time, event, survived, np.array(self.edges), weights),
        }

    def selection(self, predictions: pd.DataFrame) -> float:
        """Harrell's C; NaN where no two rows can be compared."""
        value = self.score(predictions)["c_index"]
        return float("nan") if value is None else value

    def details(self, predictions: pd.DataFrame) -> Json:
        """`survival`: curves of the patients above and below the median risk; see `by_risk`."""
        return by_risk(predictions, None)
