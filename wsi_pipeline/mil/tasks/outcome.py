"""What the survival tasks share: times and events of a table, strata, curves by risk.

The unit of time is that of the table: days, months, whatever. It is never guessed and never changed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.task import Codes, Floats, Json, numbers_of, quantile_groups
from wsi_pipeline.statistics.survival_metrics import Mask, risk_groups

COLUMNS = ("time", "event")

_MOST_STRATA, _ROWS_A_STRATUM = 3, 10


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
    """The model each row is by, 0, 1, ..., from `fold` and `repeat`; None where neither is there."""
    names = [name for name in ("repeat", "fold") if name in predictions]
    return np.array(predictions.groupby(names, sort=True).ngroup(), dtype=np.int64) if names else None


def by_risk(predictions: pd.DataFrame, fold: Codes | None) -> Json:
    """Kaplan-Meier curves of patients in halves by risk, and the log-rank test: the key `survival` of metrics.json.

    A patient counts once, with the mean risk of its rows, and has a high risk above the median (with `fold`: of its
    fold). The halves follow from the risks alone; the outcome has no part in them. See `metrics_survival.risk_groups`.
    """
    time, event = outcome_of(some(predictions))
    rows = pd.DataFrame({"patient": predictions["patient_id"].to_numpy(), "time": time, "event": event})
    risk = pd.Series(numbers_of(predictions, "risk"))
    if fold is not None:
        risk = risk - risk.groupby(fold).transform("median")
    patients = rows.assign(risk=risk).groupby("patient").agg({"time": "first", "event": "first", "risk": "mean"})
    high = patients["risk"].to_numpy() > (patients["risk"].median() if fold is None else 0)
    halves = risk_groups(patients["time"].to_numpy(float), patients["event"].to_numpy(bool), high)
    cut = "median risk" if fold is None else "median risk of each fold"
    return {"survival": {"unit": "patient", "cut": cut, **halves}}


def some(predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions. Raises MilError where there are none."""
    if len(predictions) == 0:
        raise MilError("there are no predictions to measure")
    return predictions
