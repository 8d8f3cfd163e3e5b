"""Stage `train-mil`: cross-validated slide-level models on the features of one encoder.

train-mil/<encoder>/<training>/         see `training_name`
  fold<k>.safetensors  config.json      the models and what they were trained with
  novelty.safetensors                   distribution of the slides' features, to recognise slides far from it;
                                        needs at least three slides
  model_card.md                         Hugging Face model card: the model, its evaluation and its limits
  predictions.csv                       one row per tested slide and repeat, by a model that never saw its patient
  folds.csv                             training, early-stopping and test part of each fold
  history.json                          losses of each fold and epoch
  metrics.json                          metrics with intervals; written last, so it marks the training as complete

A training is replaced by one with other settings or labels only on request. Whatever is replaced (on request, or
because the slides have changed) is kept in train-mil/<encoder>/former/.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_pipeline.cohort.run_dir import RunDir, slug
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.deployed.model_card import CARD, model_card
from wsi_pipeline.mil.trained import novelty
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.mil.validation.crossval import CrossValidation, TrainingProgress, cross_validate_bags
from wsi_pipeline.mil.validation.risk_cut import risk_cut_json
from wsi_pipeline.splits.fold import SHARED
from wsi_pipeline.stages.engine.freshness import REVISIONS
from wsi_pipeline.stages.inputs.retraining import check_replaceable
from wsi_pipeline.stages.inputs.slide_bags import SlideBags, stain_warnings, tuned_on_warnings
from wsi_pipeline.stages.results.finished import METRICS
from wsi_pipeline.stages.results.former import keep_former
from wsi_pipeline.stages.results.trainings import (
    FOLDS,
    HISTORY,
    NAME,
    PREDICTIONS,
    Training,
    base_name,
    names_in,
    read_training,
    training_name,
)
from wsi_pipeline.system.atomic import remove, write_text, write_text_if_changed
from wsi_pipeline.system.device import choose_device
from wsi_pipeline.system.locks import locked

ANY_FOLDS = "digest_any_folds"
"""Key of metrics.json, where targets share folds: the digest of the same training in folds of its own.

Asked for alone, such a target is up to date: it needs no other folds.
"""


def train(
    run: RunDir,
    encoder: str,
    slides: SlideBags,
    spec: MilSpec,
    *,
    name: str | None = None,
    replace: bool = False,
    device: str = "auto",
    progress: Callable[[TrainingProgress], None] | None = None,
) -> Training:
    """Cross-validate `spec.model` on `slides` (all labelled), or read the existing training if it is up to date.

    encoder   folder name under embed/ and train-mil/
    slides    the bags to train on; metrics.json keeps their `source`
    name      folder name of the training; None: as given by `training_name`
    replace   allow replacing a training with other settings or labels

    If several processes start the same training, one runs it and the others wait. Raises MilError if no
    honest cross-validation is possible, UsageError if another training would be replaced.
    """
    folder = run.mil(encoder, name or training_name(spec, slides.source.column))
    with locked(run.lock(NAME, slug(f"{encoder}/{folder.name}")), math.inf):
        known, digest = read_training(folder), training_digest(slides, spec)
        # Older runs name the folder after the model alone, or without the target.
        older = [] if name else [run.mil(encoder, training_name(spec)), run.mil(encoder, base_name(spec))]
        for found in (known, *map(read_training, older)):
            if found is not None and digest in (found.metrics.get("digest"), found.metrics.get(ANY_FOLDS)):
                return _with_card(_with_patients(found, slides.source.patients))
        if known is not None and not replace:
            check_replaceable(folder, known.predictions, slides.table, spec)
        made = _train(folder, slides, spec, device, progress)
        return _with_card(_with_patients(made, slides.source.patients))


def _with_card(training: Training) -> Training:
    """The training, after writing its model card to its folder."""
    text = model_card(load_ensemble(training.folder), training.metrics, names_in(training))
    write_text_if_changed(training.folder / CARD, text)
    return training


def _with_patients(training: Training, patients: str) -> Training:
    """The training with `patients` in its metrics.json; a missing key means that the patients are stated."""
    if training.metrics.get("patients", "stated") == patients:
        return training
    metrics = {**training.metrics, "patients": patients}
    write_text(training.folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return dataclasses.replace(training, metrics=metrics)


def _train(
    folder: Path,
    slides: SlideBags,
    spec: MilSpec,
    device: str,
    progress: Callable[[TrainingProgress], None] | None,
) -> Training:
    where = choose_device(device)
    result = cross_validate_bags(slides.bags, slides.table, spec, device=where, progress=progress)
    metrics = {
        "digest": training_digest(slides, spec),
        "encoder": folder.parent.name,
        "model": base_name(spec),
        **({"choose": spec.choose} if spec.choose.strip() else {}),
        **slides.source.to_json(spec.task),
        **({ANY_FOLDS: training_digest(_own_folds(slides), spec)} if SHARED in slides.table else {}),
        **result.metrics,
        **risk_cut_json(result, where),
        **_stain(slides),
        "warnings": [*tuned_on_warnings(slides), *stain_warnings(slides), *result.metrics["warnings"]],
        "left_out": slides.left_out,
    }
    former = keep_former(folder, _digest_of(folder)) if (folder / METRICS).exists() else None
    _write(folder, slides, spec, result, metrics)
    predictions = _named_bags(result.predictions, spec)
    return Training(folder, metrics, predictions, result.histories, fresh=False, former=former)


def _stain(slides: SlideBags) -> dict[str, Any]:
    """`stain`: method and target that the features were normalised with; no such key without normalisation."""
    embed = slides.specs.get("embed") or {}
    found = {key: embed[key] for key in ("stain_norm", "stain_target") if key in embed}
    return {"stain": found} if found else {}


def _own_folds(slides: SlideBags) -> SlideBags:
    """The same bags, without the folds shared with other targets."""
    return dataclasses.replace(slides, table=slides.table.drop(columns=SHARED))


def _digest_of(folder: Path) -> str:
    """Digest of the training in a folder; "" if there is none."""
    known = read_training(folder)
    return str(known.metrics.get("digest", "")) if known else ""


def _named_bags(table: pd.DataFrame, spec: MilSpec) -> pd.DataFrame:
    """A table of bags by name, without slide_id if bags are patients."""
    return table.drop(columns="slide_id") if spec.bag == "patient" else table


def training_digest(slides: SlideBags, spec: MilSpec) -> str:
    """Digest of a training: settings, features, labels, patients, splits."""
    rows = slides.table.astype(object).where(slides.table.notna(), None).to_dict("records")
    later = ("positive", "grades")  # newer than some trainings, which stay up to date if these are not used
    settings = {name: value for name, value in asdict(spec).items() if name not in later or value is not None}
    return digest_of(stage=NAME, revision=REVISIONS[NAME], spec=settings, slides=rows, features=slides.digests)


def _write(folder: Path, slides: SlideBags, spec: MilSpec, result: CrossValidation, metrics: dict[str, Any]) -> None:
    adapter = {"adapter": slides.adapter} if slides.adapter else {}
    provenance = {"specs": slides.specs, "digest": metrics["digest"], "slides": len(slides.table), **adapter}
    result.save_models(folder, spec, slides.encoder, provenance)
    if len(slides.bags) < novelty.LEAST_SLIDES:
        remove(folder / novelty.FILE)  # left by an unfinished training
    else:
        novelty.save(folder, novelty.fit(slides.bags, patients=slides.table["patient_id"].tolist()))
    predictions, assignment = _named_bags(result.predictions, spec), _named_bags(result.assignment, spec)
    write_text(folder / PREDICTIONS, predictions.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    write_text(folder / FOLDS, assignment.to_csv(index=False, lineterminator="\n"))
    write_text(folder / HISTORY, json.dumps(result.histories) + "\n")
    write_text(folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
