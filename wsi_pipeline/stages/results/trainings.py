"""Finished trainings of a run: where they are and how to read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, slug
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import StoreError
from wsi_pipeline.stages.results.finished import METRICS
from wsi_pipeline.statistics.metric_words import CLASS_TASKS

NAME = "train-mil"
PREDICTIONS, FOLDS, HISTORY = "predictions.csv", "folds.csv", "history.json"
CHOSEN = "chosen"
"""Folder of a training in which each fold chose its model or settings."""
_LONGEST_TARGET = 80
"""Characters of a column's name in that of a folder."""
_TEXT = ("slide_id", "patient_id", "label", "predicted")
"""Columns of predictions.csv that are text; the last two are numbers where a number is predicted."""


@dataclass(frozen=True, eq=False)
class Training:
    """A finished training: its folder, metrics, and the losses of each fold.

    former   folder of the results that this training has replaced
    """

    folder: Path
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    histories: list[list[dict[str, Any]]]
    fresh: bool
    former: Path | None = None


def trained_patients(folder: Path) -> frozenset[str]:
    """Patients whose slides the models were trained on; empty if folds.csv cannot be read.

    Patients who are only in the test part of a fixed split are not included.
    """
    try:
        rows = pd.read_csv(folder / FOLDS, usecols=["patient_id", "part"], dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return frozenset()
    return frozenset(rows.loc[rows["part"] != "test", "patient_id"])


def model_numbers(predictions: pd.DataFrame, metrics: Mapping[str, Any], record: SlideRecord) -> list[int]:
    """Numbers of the models that tested the slide, one per repeat."""
    key, name = ("slide_id", record.slide_id) if "slide_id" in predictions else ("patient_id", record.patient_id)
    rows = predictions[predictions[key].astype(str) == str(name)]
    repeats = rows["repeat"] if "repeat" in rows else pd.Series(0, index=rows.index)
    listed = [(int(fold.get("repeat") or 0), int(fold["fold"])) for fold in metrics.get("folds") or ()]
    pairs = zip(repeats.astype(int), rows["fold"].astype(int), strict=True)
    return [listed.index(pair) if pair in listed else pair[1] for pair in pairs]


def training_name(spec: MilSpec, target: str = "") -> str:
    """Default folder name of a training: `gated-abmil`, `mean.survival`, `abmil.survival-cox.patient`.

    The model (`chosen` if each fold chooses one), then task and bag if not the default, then `target`: the label
    column if one was named (`gated-abmil.kras`), or the survival endpoint (`gated-abmil.survival.pfs`).
    """
    cox = "-cox" if spec.task == "survival" and spec.survival_loss == "cox" else ""
    task = [] if spec.task == "classification" else [spec.task + cox]
    bag = [] if spec.bag == "slide" else [spec.bag]
    column = [slug(target)[:_LONGEST_TARGET]] if target else []
    return ".".join([base_name(spec), *task, *bag, *column])


def base_name(spec: MilSpec) -> str:
    return CHOSEN if spec.choose.strip() else spec.model


def read_training(folder: str | PathLike[str]) -> Training | None:
    """The training in `folder`; None if it is missing or incomplete."""
    folder = Path(folder)
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        histories = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
        text = _TEXT if metrics.get("task", "classification") in CLASS_TASKS else _TEXT[:2]
        predictions = pd.read_csv(folder / PREDICTIONS, dtype=dict.fromkeys(text, str), keep_default_na=False)
    except (OSError, ValueError):
        return None
    return Training(folder, metrics, predictions, histories, fresh=True)


def names_in(training: Training) -> list[str]:
    """Ids of a training's slides and patients, and of the slides it left out."""
    columns = [training.predictions[name] for name in ("slide_id", "patient_id") if name in training.predictions]
    named = {str(value) for column in columns for value in column.unique()}
    return sorted({*named, *map(str, training.metrics.get("left_out") or ())})


def trainings(run: RunDir) -> list[Training]:
    """All complete trainings of a run, by folder name."""
    root = run.root / NAME
    folders = sorted(root.glob("*/*")) if root.is_dir() else []
    return [training for folder in folders if (training := read_training(folder)) is not None]


def require_training(folder: str | PathLike[str]) -> Training:
    """The training in `folder`; raises StoreError if there is none."""
    folder = Path(folder)
    training = read_training(folder)
    if training is None:
        raise StoreError(f"no trained model in {folder}", todo="Train one with: wsi-pipeline train-mil")
    return training
