"""Which survival task: learned from the times and events of a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.cox import CoxTask
from wsi_pipeline.mil.tasks.discrete import DiscreteTask
from wsi_pipeline.mil.tasks.outcome import COLUMNS, outcome_of
from wsi_pipeline.wording import listed


def make_survival(table: pd.DataFrame, spec: MilSpec) -> CoxTask | DiscreteTask:
    """The survival task of `spec.survival_loss`; intervals end at quantiles of the times of events.

    Raises MilError for times and events that are none, patients whose slides say different things, and fewer than
    two patients with an event.
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
                "--survival-loss cox compares the bags of a step, and there is one", todo="Use --batch-bags 32, say."
            )
        return CoxTask()
    first = table.assign(time=time)[event].groupby("patient_id")["time"].first().to_numpy(dtype=np.float64)
    fractions = np.arange(1, spec.time_bins + 1) / spec.time_bins
    return DiscreteTask(tuple(np.unique(np.quantile(first, fractions, method="inverted_cdf")).tolist()))


def _refuse_conflicts(table: pd.DataFrame) -> None:
    """Survival is the patient's: slides of one patient must agree."""
    for column in COLUMNS:
        counts = table.groupby("patient_id")[column].nunique()
        if (counts > 1).any():
            patient = counts.index[counts > 1][0]
            slides = listed(table.loc[table["patient_id"] == patient, "slide_id"])
            raise MilError(
                f"slides of patient {patient} differ in {column} ({slides})",
                todo=f"Give all slides of a patient the same {column}.",
            )
