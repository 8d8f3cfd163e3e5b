"""Survival: a Cox model (one log risk), or the hazards of a few intervals of time; censoring in both.

Times are in the unit of the table (days, months), which is never guessed or converted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.task import Codes, Floats, Json, nan_if_none, numbers_of, quantile_groups, some, values_of
from wsi_pipeline.statistics.metric_words import CHANCE_LEVEL
from wsi_pipeline.statistics.survival_metrics import Mask, concordance, integrated_brier, risk_groups
from wsi_pipeline.wording import listed

if TYPE_CHECKING:
    from wsi_pipeline.mil.training.survival_losses import CoxSurvival, DiscreteSurvival

COLUMNS = ("time", "event")
MAX_EDGES = 1000

_MOST_STRATA, _ROWS_A_STRATUM = 3, 10


@dataclass(frozen=True)
class CoxTask:
    """Outcome `time` and `event`; a model's one output is a log risk.

    Predictions: risk, the log hazard ratio against a reference that differs between models: the order of risks and
    their differences have a meaning, a single value has none. So risks are compared only within a fold.
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
        """The partial likelihood. Raises MilError for invalid times or events."""
        import torch

        from wsi_pipeline.mil.training.survival_losses import CoxSurvival

        time, event = outcome_of(table)
        return CoxSurvival(torch.from_numpy(time), torch.from_numpy(event))

    def strata(self, table: pd.DataFrame) -> Codes:
        """See `strata_of`."""
        return strata_of(table)

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Column risk from outputs (B, 1)."""
        return pd.DataFrame({"risk": outputs[:, 0]})

    def evaluate(self, predictions: pd.DataFrame) -> SurvivalEvaluation:
        """Times, events and risks; concordance is over the pairs within one fold."""
        return _evaluation(predictions, fold_of(predictions))


@dataclass(frozen=True)
class DiscreteTask:
    """Outcome `time` and `event`; output k is the logit of the hazard in the interval that ends at `edges[k]`.

    Predictions: risk, the expected time lost before the last edge (in the unit of `time`; Royston and Parmar 2013),
    and p_survived_<t> for each edge t. Raises MilError unless edges are positive and rising.
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
        """This task: its intervals end at the times at which survival is predicted, the same in every fold."""
        return self

    def objective(self, table: pd.DataFrame, spec: MilSpec) -> DiscreteSurvival:
        """The likelihood of the hazards. Raises MilError for invalid times or events."""
        import torch

        from wsi_pipeline.mil.training.survival_losses import DiscreteSurvival

        time, event = outcome_of(table)
        edges = torch.tensor(self.edges, dtype=torch.float64)
        return DiscreteSurvival(torch.from_numpy(time), torch.from_numpy(event), edges)

    def strata(self, table: pd.DataFrame) -> Codes:
        """See `strata_of`."""
        return strata_of(table)

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Columns risk, p_survived_<t>... from the logits of the hazards (B, K)."""
        survived = np.cumprod(scipy.special.expit(-outputs), axis=1)
        before = np.concatenate([np.ones((len(outputs), 1)), survived[:, :-1]], axis=1)
        widths = np.diff(self.edges, prepend=0.0)
        lost = self.edges[-1] - ((before + survived) / 2) @ widths
        return pd.DataFrame({"risk": lost, **{name: survived[:, k] for k, name in enumerate(self.survived)}})

    @property
    def survived(self) -> tuple[str, ...]:
        """The columns p_survived_<t>, one for each edge."""
        return tuple(f"p_survived_{repr(float(edge)).removesuffix('.0')}" for edge in self.edges)

    def evaluate(self, predictions: pd.DataFrame) -> SurvivalEvaluation:
        """Times, events, risks and predicted survival."""
        survived = np.stack([numbers_of(some(predictions), name) for name in self.survived], axis=1)
        return replace(_evaluation(predictions, None), survived=survived, edges=np.array(self.edges))


@dataclass(frozen=True, eq=False)
class SurvivalEvaluation:
    """Outcomes and predictions of survival, each (n,).

    fold              within which risks are compared (Cox); None: among all rows
    survived, edges   predicted survival (n, K) at the times `edges` (K,); None if not predicted (Cox)
    """

    time: Floats
    event: Mask
    risk: Floats
    patient: Codes
    fold: Codes | None
    survived: Floats | None = None
    edges: Floats | None = None

    def take(self, rows: NDArray[np.bool_]) -> SurvivalEvaluation:
        """The rows of a mask (n,)."""
        return SurvivalEvaluation(
            self.time[rows],
            self.event[rows],
            self.risk[rows],
            self.patient[rows],
            None if self.fold is None else self.fold[rows],
            None if self.survived is None else self.survived[rows],
            self.edges,
        )

    def values(self) -> dict[str, float | None]:
        """Harrell's C, and the integrated Brier score if survival is predicted."""
        return values_of(self, len(self.time))

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """The same metrics for weights (R, n) of the rows."""
        found = {"c_index": concordance(self.time, self.event, self.risk, weights, self.fold)}
        if self.survived is not None and self.edges is not None:
            found["integrated_brier"] = integrated_brier(self.time, self.event, self.survived, self.edges, weights)
        return found

    def selection(self) -> float:
        """Harrell's C; NaN if no two rows can be compared."""
        return nan_if_none(self.values()["c_index"])

    def permuted(self) -> Callable[[Codes], float]:
        """Harrell's C by order."""
        once = np.ones((1, len(self.time)))
        return lambda order: float(concordance(self.time[order], self.event[order], self.risk, once, self.fold)[0])

    def chance(self) -> dict[str, float]:
        """A coin."""
        return {"c_index": CHANCE_LEVEL["c_index"]}

    def details(self) -> Json:
        """`survival`: Kaplan-Meier curves of patients in halves by risk, and the log-rank test; see `risk_groups`.

        A patient counts once, with the mean risk of its rows, and has a high risk above the median (with `fold`: of its
        fold). The halves follow from the risks alone, not from the outcomes.
        """
        return self.groups()

    def groups(self, above: float | None = None) -> Json:
        """The same; with `above`, a high risk is one above that value, as a training states it."""
        risk = pd.Series(self.risk)
        if self.fold is not None:
            risk = risk - risk.groupby(self.fold).transform("median")
        rows = pd.DataFrame({"patient": self.patient, "time": self.time, "event": self.event, "risk": risk})
        patients = rows.groupby("patient").agg({"time": "first", "event": "first", "risk": "mean"})
        median = patients["risk"].median() if self.fold is None else 0
        high = patients["risk"].to_numpy() > (median if above is None else above)
        halves = risk_groups(patients["time"].to_numpy(float), patients["event"].to_numpy(bool), high)
        cut = "median risk" if self.fold is None else "median risk of each fold"
        if above is not None:
            cut = f"median risk in training, {above:.4g}"
            return {"survival": {"unit": "patient", "cut": cut, "value": above, **halves}}
        return {"survival": {"unit": "patient", "cut": cut, **halves}}


def make_survival(table: pd.DataFrame, spec: MilSpec) -> CoxTask | DiscreteTask:
    """The survival task of `spec.survival_loss`; intervals end at quantiles of the times of events.

    Raises MilError for invalid times or events, patients whose slides disagree, and fewer than two patients with an
    event.
    """
    time, event = outcome_of(table)
    _refuse_conflicts(table)
    with_event = table.loc[event, "patient_id"].nunique()
    if with_event < 2:
        seen = "only 1 patient has" if with_event else "no patient has"
        raise MilError(
            f"{seen} an event; survival needs at least 2", todo="Check the column event: 1 where the event was seen."
        )
    if time[event].min() == time.max():
        raise MilError(f"all events are at one time, {time.max():g}, and nobody was followed longer")
    if spec.survival_loss == "cox":
        if spec.batch_bags < 2:
            raise MilError(
                "--survival-loss cox compares the bags of a training step, but --batch-bags is 1",
                todo="Use for example --batch-bags 32.",
            )
        return CoxTask()
    first = table.assign(time=time)[event].groupby("patient_id")["time"].first().to_numpy(dtype=np.float64)
    fractions = np.arange(1, spec.time_bins + 1) / spec.time_bins
    return DiscreteTask(tuple(np.unique(np.quantile(first, fractions, method="inverted_cdf")).tolist()))


def _refuse_conflicts(table: pd.DataFrame) -> None:
    """Survival belongs to the patient: slides of one patient must agree."""
    for column in COLUMNS:
        counts = table.groupby("patient_id")[column].nunique()
        if (counts > 1).any():
            patient = counts.index[counts > 1][0]
            slides = listed(table.loc[table["patient_id"] == patient, "slide_id"])
            raise MilError(
                f"slides of patient {patient} differ in {column} ({slides})",
                todo=f"Give all slides of a patient the same {column}.",
            )


def outcome_of(table: pd.DataFrame) -> tuple[Floats, Mask]:
    """Times (n,), events bool (n,). Raises MilError naming a slide whose time is not positive, or event not 0 or 1."""
    time, event = numbers_of(table, "time"), numbers_of(table, "event")
    for column, values, wrong, expected in (
        ("time", time, time <= 0, "a positive number"),
        ("event", event, (event != 0) & (event != 1), "0 or 1"),
    ):
        if wrong.any():
            slide = str(table["slide_id"][wrong].iloc[0])
            raise MilError(f"{column} must be {expected}, got {values[wrong][0]:g}", slide=slide)
    return time, event.astype(bool)


def strata_of(table: pd.DataFrame) -> Codes:
    """Event by time group, 0, 1, ...: up to 3 groups by rising time for those with and without an event each.

    A group has at least 10 rows where there are as many.
    """
    time, event = outcome_of(table)
    codes = np.zeros(len(time), np.int64)
    for side in (False, True):
        rows = event == side
        groups = int(np.clip(rows.sum() // _ROWS_A_STRATUM, 1, _MOST_STRATA))
        codes[rows] = quantile_groups(time[rows], groups) + (_MOST_STRATA if side else 0)
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def fold_of(predictions: pd.DataFrame) -> Codes | None:
    """Which model predicted each row, 0, 1, ..., from `fold` and `repeat`; None if there is neither column."""
    names = [name for name in ("repeat", "fold") if name in predictions]
    return np.array(predictions.groupby(names, sort=True).ngroup(), dtype=np.int64) if names else None


def _evaluation(predictions: pd.DataFrame, fold: Codes | None) -> SurvivalEvaluation:
    time, event = outcome_of(some(predictions))
    patient = pd.factorize(predictions["patient_id"], sort=True)[0].astype(np.int64)
    return SurvivalEvaluation(time, event, numbers_of(predictions, "risk"), patient, fold)
