"""Predictions of a finished model as one side of a comparison, beside a validation or another model's predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from wsi_pipeline.errors import MilError, StoreError
from wsi_pipeline.mil.tasks.classification import ClassificationTask
from wsi_pipeline.mil.tasks.make_task import task_from_json
from wsi_pipeline.mil.tasks.regression import RegressionTask
from wsi_pipeline.mil.tasks.survival import CoxTask, DiscreteTask
from wsi_pipeline.mil.tasks.task import Task
from wsi_pipeline.mil.validation.external import SEEN, by_patient, usable_rows
from wsi_pipeline.stages.results.prediction_files import MODEL, PREDICTIONS, read_json, read_predictions
from wsi_pipeline.stages.results.trainings import Training
from wsi_pipeline.wording import counted

DROPPED, NOTES = "dropped", "notes"
"""Keys of a side's metrics: names of rows that are no test, and sentences about the side."""


def is_prediction(folder: Path) -> bool:
    """Whether a folder holds predictions (predict/...)."""
    return (folder / PREDICTIONS).is_file() and (folder / MODEL).is_file()


def task_of_prediction(folder: Path) -> Task:
    """The task of the model behind a folder of predict/. Raises StoreError if the folder does not say.

    Folders of earlier versions have no task in model.json; it is derived from the columns of predictions.csv.
    """
    stated = (read_json(folder / MODEL) or {}).get("task")
    try:
        return task_from_json(stated) if stated is not None else _task_of_columns(folder / PREDICTIONS)
    except (MilError, OSError, ValueError) as error:
        raise StoreError(
            f"{folder / MODEL} does not say what was predicted", todo="Predict again with: wsi-pipeline predict"
        ) from error


def _task_of_columns(path: Path) -> Task:
    """The task that the columns of predictions.csv belong to. Raises MilError if to none, OSError, ValueError."""
    table = read_predictions(path)
    columns = [str(name) for name in table]
    edges = [float(name.removeprefix("p_survived_")) for name in columns if name.startswith("p_survived_")]
    if "risk" in columns:
        return DiscreteTask(tuple(edges)) if edges else CoxTask()
    if classes := [name.removeprefix("p_") for name in columns if name.startswith("p_")]:
        return ClassificationTask(tuple(classes))
    if "predicted" not in columns:
        raise MilError(f"{path} has no column of predictions")
    return RegressionTask(0.0, 1.0)  # mean and spread of the training labels, which no metric needs


def read_side(folder: Path) -> Training:
    """The predictions in `folder` that count as a test: with an outcome, of patients the model was not trained on.

    Raises StoreError for files that cannot be read, MilError if no row is a test.
    """
    task = task_of_prediction(folder)
    try:
        table = read_predictions(folder / PREDICTIONS)
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / PREDICTIONS} cannot be read: {error}", todo="Predict again") from error
    missing = [name for name in task.columns if name not in table]
    if missing:
        raise MilError(f"{folder / PREDICTIONS} has no column {missing[0]}: nothing to compare with")
    names = _names(table)
    usable = usable_rows(task, table, names).rows
    seen = (table[SEEN] == "yes").to_numpy() if SEEN in table else np.zeros(len(table), bool)
    kept = usable & ~seen
    if not kept.any():
        why = "are of patients the model was trained on" if (usable & seen).any() else "have no outcome it knows"
        raise MilError(
            f"{folder} has no test predictions: all {why}", todo="Compare validations: two folders of train-mil/"
        )
    notes = []
    if SEEN not in table:
        notes.append(
            f"{folder} comes from an earlier version without the column {SEEN}: if its model was trained on some of "
            "these patients, its metrics are too optimistic; run predict again to leave these patients out"
        )
    if not kept.all():
        parts = (
            f"{(usable & seen).sum()} of patients its model was trained on",
            f"{(~usable).sum()} without an outcome",
        )
        notes.append(f"left out of {folder} and of the other side: {' and '.join(parts)}")
    rows = table[kept].reset_index(drop=True).assign(repeat=0, fold=0)
    return Training(folder, {DROPPED: list(names[~kept]), NOTES: notes}, rows, [], fresh=True)


def aligned(one: Training, other: Training, tasks: tuple[Task, Task]) -> tuple[Training, Training]:
    """Both sides reduced to the rows that are a test for both; by patient if only the slides differ."""
    dropped = {name for side in (one, other) for name in side.metrics.get(DROPPED) or ()}
    both = [replace(side, predictions=_without(side.predictions, dropped)) for side in (one, other)]
    slides, patients = ([set(_names(s.predictions, key)) for s in both] for key in ("slide_id", "patient_id"))
    if slides[0] != slides[1] and patients[0] == patients[1]:
        n = counted(len(patients[0]), "patient")
        note = f"different slides of the same {n}: compared by patient, each with the mean prediction of its slides"
        both = [per_patient(side, task) for side, task in zip(both, tasks, strict=True)]
        both[0] = replace(both[0], metrics={**both[0].metrics, NOTES: [*(both[0].metrics.get(NOTES) or ()), note]})
    return both[0], both[1]


def _without(table: pd.DataFrame, dropped: set[str]) -> pd.DataFrame:
    return table[~_names(table).isin(dropped)].reset_index(drop=True)


def per_patient(side: Training, task: Task) -> Training:
    """One row per patient and repeat; within a repeat a patient is in only one fold."""
    table = side.predictions if "repeat" in side.predictions else side.predictions.assign(repeat=0)
    parts = []
    for repeat, rows in table.groupby("repeat", sort=True):
        patients, torn = by_patient(task, rows)
        if torn:
            raise MilError(
                f"slides of patient {torn[0]} differ in {' or '.join(task.columns)}: they cannot be compared"
            )
        folds = rows.groupby(rows["patient_id"].astype(str), sort=False)["fold"].first()
        parts.append(patients.assign(repeat=repeat, fold=folds.to_numpy()))
    return replace(side, predictions=pd.concat(parts, ignore_index=True))


def _names(table: pd.DataFrame, key: str = "slide_id") -> pd.Series[str]:
    return table[key if key in table else "patient_id"].astype(str)
