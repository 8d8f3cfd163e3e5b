"""Stage `train-mil`: cross-validated slide-level models on the features of one encoder.

train-mil/<encoder>/<training>/         see `training_name`
  fold<k>.safetensors  config.json      the models and what they were trained with
  novelty.safetensors                   what the slides' features look like, to tell those that are far from them;
                                        not of fewer than three slides
  predictions.csv                       one row per tested slide and repeat, by a model that never saw its patient
  folds.csv                             who trained, stopped and tested in each fold
  history.json                          losses of each fold and epoch
  metrics.json                          metrics with intervals; written last, it marks the training as whole

A training is never replaced by one with other settings or other labels unless that is asked for, and what is replaced
(then, or because the slides have changed) is kept in train-mil/<encoder>/former/.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_pipeline.atomic import remove, write_text
from wsi_pipeline.cohort.locks import locked
from wsi_pipeline.cohort.rundir import RunDir, slug
from wsi_pipeline.encoders.device import choose_device
from wsi_pipeline.errors import StoreError
from wsi_pipeline.fields import digest_of
from wsi_pipeline.mil import novelty
from wsi_pipeline.mil.checkpoint import save_ensemble
from wsi_pipeline.mil.crossval import CrossValidation, Progress, cross_validate
from wsi_pipeline.specs import MilSpec
from wsi_pipeline.stages.bags import SlideBags
from wsi_pipeline.stages.former import keep_former
from wsi_pipeline.stages.freshness import REVISIONS
from wsi_pipeline.stages.retraining import check_replaceable

NAME = "train-mil"
PREDICTIONS, FOLDS, HISTORY, METRICS = "predictions.csv", "folds.csv", "history.json", "metrics.json"
CHOSEN = "chosen"
"""Folder of a training in which each fold chose its model or settings."""

_TEXT = ("slide_id", "patient_id", "label", "predicted")
"""Columns of predictions.csv that are text; the last two are numbers where a number is predicted."""


@dataclass(frozen=True, eq=False)
class Training:
    """A finished training: its folder, metrics, and the losses of each fold.

    former   where the results are whose place this one has taken
    """

    folder: Path
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    histories: list[list[dict[str, Any]]]
    fresh: bool
    former: Path | None = None


def train(
    run: RunDir,
    encoder: str,
    slides: SlideBags,
    spec: MilSpec,
    *,
    name: str | None = None,
    replace: bool = False,
    patients: str = "stated",
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Training:
    """Cross-validate `spec.model` on `slides` (all labelled), or read the training that is there and up to date.

    encoder   folder name under embed/, and so under train-mil/
    name      folder name of the training; None: that of `training_name`
    replace   whether a training with other settings or labels may be replaced
    patients  whose slides these are, as `Cohort.patients_stated` has it; kept in metrics.json

    Of several processes that are asked for the same training one does it, the others wait. Raises MilError where it
    cannot be done honestly, UsageError where another training would be replaced.
    """
    folder = run.mil(encoder, name or training_name(spec))
    with locked(run.lock(NAME, slug(f"{encoder}/{folder.name}")), math.inf):
        known = read_training(folder)
        # Runs of before have every task and bag in a folder named after the model alone.
        for found in (known, None if name else read_training(run.mil(encoder, _base_name(spec)))):
            if found is not None and found.metrics.get("digest") == training_digest(slides, spec):
                return _said(found, patients)
        if known is not None and not replace:
            check_replaceable(folder, known.predictions, slides.table, spec)
        return _said(_train(folder, slides, spec, device, progress), patients)


def _said(training: Training, patients: str) -> Training:
    """The training, its metrics.json telling whose slides these are; those that do not tell have them stated."""
    if training.metrics.get("patients", "stated") == patients:
        return training
    metrics = {**training.metrics, "patients": patients}
    write_text(training.folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return dataclasses.replace(training, metrics=metrics)


def _train(
    folder: Path, slides: SlideBags, spec: MilSpec, device: str, progress: Callable[[Progress], None] | None
) -> Training:
    result = cross_validate(slides.bags, slides.table, spec, device=choose_device(device), progress=progress)
    metrics = {
        "digest": training_digest(slides, spec),
        "encoder": folder.parent.name,
        "model": _base_name(spec),
        **({"choose": spec.choose} if spec.choose.strip() else {}),
        **result.metrics,
        "warnings": [*tuned_on_warnings(slides), *result.metrics["warnings"]],
        "left_out": slides.left_out,
    }
    former = keep_former(folder, _digest_of(folder)) if (folder / METRICS).exists() else None
    _write(folder, slides, spec, result, metrics)
    predictions = _named_bags(result.predictions, spec)
    return Training(folder, metrics, predictions, result.histories, fresh=False, former=former)


def _digest_of(folder: Path) -> str:
    """The digest of the training in a folder; "" where it does not tell."""
    known = read_training(folder)
    return str(known.metrics.get("digest", "")) if known else ""


def trained_patients(folder: Path) -> frozenset[str]:
    """Patients by whose slides the models of a training were made; none where its folds.csv cannot be read.

    Those who only tested, in a fixed split, are not among them.
    """
    try:
        rows = pd.read_csv(folder / FOLDS, usecols=["patient_id", "part"], dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return frozenset()
    return frozenset(rows.loc[rows["part"] != "test", "patient_id"])


def training_name(spec: MilSpec) -> str:
    """The folder of a training unless it is given a name: `gated-abmil`, `mean.survival`, `abmil.survival-cox.patient`.

    The model (`chosen` where each fold chooses), then what of task and bag is not the default.
    """
    cox = "-cox" if spec.task == "survival" and spec.survival_loss == "cox" else ""
    task = [] if spec.task == "classification" else [spec.task + cox]
    bag = [] if spec.bag == "slide" else [spec.bag]
    return ".".join([_base_name(spec), *task, *bag])


def _base_name(spec: MilSpec) -> str:
    return CHOSEN if spec.choose.strip() else spec.model


def _named_bags(table: pd.DataFrame, spec: MilSpec) -> pd.DataFrame:
    """A table of bags by their names: where bags are patients there is no slide_id."""
    return table.drop(columns="slide_id") if spec.bag == "patient" else table


def tuned_on_warnings(slides: SlideBags) -> list[str]:
    """A warning where the features of tested slides have seen labels of the same patients."""
    if not slides.tuned_on:
        return []
    named = ", ".join(slides.tuned_on[:5]) + (", ..." if len(slides.tuned_on) > 5 else "")
    return [
        f"The encoder was tuned on labels of patients of {len(slides.tuned_on)} of these {len(slides.table)} slides "
        f"({named}): the metrics may flatter. Tune on other patients, or read them beside an encoder not tuned here."
    ]


def training_digest(slides: SlideBags, spec: MilSpec) -> str:
    """Digest of a training: settings, features, labels, patients, splits."""
    rows = slides.table.astype(object).where(slides.table.notna(), None).to_dict("records")
    settings = {name: value for name, value in asdict(spec).items() if name != "positive" or value is not None}
    return digest_of(stage=NAME, revision=REVISIONS[NAME], spec=settings, slides=rows, features=slides.digests)


def read_training(folder: Path) -> Training | None:
    """The training in `folder`, or None where there is no whole one."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        histories = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
        text = _TEXT if metrics.get("task", "classification") == "classification" else _TEXT[:2]
        predictions = pd.read_csv(folder / PREDICTIONS, dtype=dict.fromkeys(text, str), keep_default_na=False)
    except (OSError, ValueError):
        return None
    return Training(folder, metrics, predictions, histories, fresh=True)


def trainings(run: RunDir) -> list[Training]:
    """Every whole training of a run, by folder name."""
    root = run.root / NAME
    folders = sorted(root.glob("*/*")) if root.is_dir() else []
    return [training for folder in folders if (training := read_training(folder)) is not None]


def require_training(folder: Path) -> Training:
    """The training in `folder`; raises StoreError where there is none."""
    training = read_training(folder)
    if training is None:
        raise StoreError(f"no trained model in {folder}", todo="Train one with: wsi-pipeline train-mil")
    return training


def _write(folder: Path, slides: SlideBags, spec: MilSpec, result: CrossValidation, metrics: dict[str, Any]) -> None:
    adapter = {"adapter": slides.adapter} if slides.adapter else {}
    save_ensemble(
        folder,
        [fitted.model for fitted in result.fitted],
        spec=spec,
        task=result.task,
        specs=[choice.chosen.spec for choice in result.choices],
        tasks=[choice.task for choice in result.choices],
        encoder=slides.encoder,
        provenance={"specs": slides.specs, "digest": metrics["digest"], "slides": len(slides.table), **adapter},
    )
    if len(slides.bags) < novelty.LEAST_SLIDES:
        remove(folder / novelty.FILE)  # of a training that was not finished
    else:
        novelty.save(folder, novelty.fit(slides.bags, patients=slides.table["patient_id"].tolist()))
    predictions, assignment = _named_bags(result.predictions, spec), _named_bags(result.assignment, spec)
    write_text(folder / PREDICTIONS, predictions.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    write_text(folder / FOLDS, assignment.to_csv(index=False, lineterminator="\n"))
    write_text(folder / HISTORY, json.dumps(result.histories) + "\n")
    write_text(folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
