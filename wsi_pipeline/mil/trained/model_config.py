"""Read the config.json of a trained ensemble; types and ranges are checked, since the file may come from anyone.

Version 1 has classification only: `task` is its name, with `classes` beside it. Version 2 has the task as a JSON
object, and the settings and task of each fold that differ from those of the ensemble.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsi_pipeline.config.fields import from_mapping
from wsi_pipeline.config.registries import MIL_MODELS
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, StoreError, UsageError
from wsi_pipeline.mil.tasks import Task, task_from_json

CONFIG = "config.json"
FORMAT, VERSION = "wsi-pipeline-mil", 2
READABLE = (1, 2)
RETRAIN = "Train it again with: wsi-pipeline train-mil"

_MAX_CONFIG_BYTES = 16 << 20
_MAX_DIM, _MAX_FOLDS = 1 << 16, 1 << 10


@dataclass(frozen=True)
class FoldConfig:
    """One model: the SHA-256 of its file, its settings, its task."""

    sha256: str
    spec: MilSpec
    task: Task


@dataclass(frozen=True)
class ModelConfig:
    """The content of config.json."""

    spec: MilSpec
    task: Task
    feature_dim: int
    encoder: Mapping[str, Any]
    provenance: Mapping[str, Any]
    folds: tuple[FoldConfig, ...]


def read_config(path: Path) -> ModelConfig:
    """Read and check a config. Raises StoreError for one that is missing, too large, damaged, or of another version."""
    config = _read_json(path)
    for field, (expected, test) in _FIELDS.items():
        if not test(config.get(field)):
            raise StoreError(f"{path}: {field} must be {expected}", todo=RETRAIN)
    spec, task = _spec(path, config["spec"]), _task(path, _task_value(path, config))
    folds = tuple(_fold(path, entry, spec, task) for entry in config["folds"])
    return ModelConfig(spec, task, config["feature_dim"], config["encoder"], config["provenance"], folds)


def checked_config(folder: Path) -> tuple[ModelConfig, str]:
    """The config of the ensemble in `folder` and its fingerprint: the SHA-256 of config.json, which holds the weights'.

    Every fold file is compared with the SHA-256 recorded for it. Needs no torch, so that a command whose results are
    up to date starts fast. Raises StoreError as `read_config` does, and for fold files that are missing or changed.
    """
    config = read_config(folder / CONFIG)
    for number, fold in enumerate(config.folds):
        path = fold_file(folder, number)
        if not path.is_file():
            raise StoreError(f"{path} is missing", todo=RETRAIN)
        if sha256_of(path) != fold.sha256:
            raise StoreError(f"{path} does not match its checksum in {CONFIG}", todo=RETRAIN)
    return config, sha256_of(folder / CONFIG)


def fold_file(folder: Path, number: int) -> Path:
    """Where the weights of a fold lie in the folder of its ensemble."""
    return folder / f"fold{number}.safetensors"


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_alike(own: Task, task: Task) -> None:
    """Raise MilError unless a fold's task makes the same columns as the ensemble's."""
    if own == task:
        return
    columns = [list(each.outcomes(np.zeros((0, each.n_outputs))).columns) for each in (own, task)]
    if type(own) is not type(task) or columns[0] != columns[1]:
        raise MilError(f"a fold's task must be that of all, {task.to_json()}, got {own.to_json()}")


def check_encoder(trained: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Raise MilError naming what differs, unless `encoder` is the one that models were `trained` on."""
    unknown = [not facts.get("fingerprint") for facts in (trained, encoder)]
    if unknown[0] != unknown[1]:
        mine, its = ("imported" if one else "computed here" for one in unknown)
        raise MilError(
            f"the features are {its} ({encoder.get('name')}), but the model was trained on features that were "
            f"{mine} ({trained.get('name')}): whether the encoder's weights are the same is not known",
            todo="Use features from the same source, or train on these.",
        )
    differing = sorted(key for key in {*trained, *encoder} if trained.get(key) != encoder.get(key))
    if differing:
        details = "; ".join(f"{key} {encoder.get(key)!r}, not {trained.get(key)!r}" for key in differing)
        raise MilError(
            f"the features are from another encoder than the model was trained on: {details}",
            todo="Embed the slides with the model's encoder, or train on these features.",
        )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise StoreError(f"{path} is missing", todo=RETRAIN)
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise StoreError(f"{path} must be at most {_MAX_CONFIG_BYTES} bytes, got {path.stat().st_size}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON: {error}", todo=RETRAIN) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise StoreError(f"{path} is not the configuration of a slide-level model (format {FORMAT})")
    version = config.get("version")
    if type(version) is not int or version not in READABLE:
        raise StoreError(
            f"{path} is of format version {version!r}; this program reads versions 1 to {VERSION}",
            todo="Use the version of wsi-pipeline that wrote it, or train it again.",
        )
    return config


def _task_value(path: Path, config: Mapping[str, Any]) -> Any:
    """The task as a JSON object; version 1 has `classification`, and the classes beside it."""
    if config["version"] != 1:
        return config.get("task")
    if config.get("task") != "classification":
        raise StoreError(f"{path}: task must be classification", todo=RETRAIN)
    return {"name": "classification", "classes": config.get("classes")}


def _task(path: Path, value: Any) -> Task:
    try:
        return task_from_json(value)
    except MilError as error:
        raise StoreError(f"{path}: task: {error.what}", todo=RETRAIN) from error


def _spec(path: Path, value: Mapping[str, Any]) -> MilSpec:
    try:
        spec = from_mapping(MilSpec, value, f"{path}: spec")
        MIL_MODELS.check(spec.model)
        return spec
    except UsageError as error:
        raise StoreError(error.what, todo=error.todo) from error


def _fold(path: Path, entry: Mapping[str, Any], spec: MilSpec, task: Task) -> FoldConfig:
    own_spec = _spec(path, entry["spec"]) if "spec" in entry else spec
    own_task = _task(path, entry["task"]) if "task" in entry else task
    try:
        check_alike(own_task, task)
    except MilError as error:
        raise StoreError(f"{path}: {error.what}", todo=RETRAIN) from error
    return FoldConfig(entry["sha256"], own_spec, own_task)


def _is_folds(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= _MAX_FOLDS
        and all(isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in value)
        and all(isinstance(entry.get("spec", {}), dict) for entry in value)
    )


_FIELDS: dict[str, tuple[str, Any]] = {
    "spec": ("an object", lambda value: isinstance(value, dict)),
    "feature_dim": (f"1 to {_MAX_DIM}", lambda value: type(value) is int and 1 <= value <= _MAX_DIM),
    "encoder": ("an object", lambda value: isinstance(value, dict)),
    "folds": (f"a list of 1 to {_MAX_FOLDS} objects with sha256", _is_folds),
    "provenance": ("an object", lambda value: isinstance(value, dict)),
}
