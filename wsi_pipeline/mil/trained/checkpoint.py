"""A trained ensemble on disk: config.json and one safetensors file per fold. Numbers and JSON only, no code.

    config.json         format, version, task, spec, feature_dim, encoder, folds (file, sha256), provenance
    fold0.safetensors   weights and standardisation of the model of fold 0, float32
    ...

Files are written atomically. config.json comes last and holds the SHA-256 of the others, so an incomplete folder is
recognised.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import StoreError
from wsi_pipeline.mil.models.zoo import MilModel
from wsi_pipeline.mil.tasks import Task
from wsi_pipeline.mil.trained.committee import build
from wsi_pipeline.mil.trained.model_config import (
    CONFIG,
    FORMAT,
    RETRAIN,
    VERSION,
    check_alike,
    check_encoder,
    checked_config,
    fold_file,
    sha256_of,
)
from wsi_pipeline.system.atomic import atomic_path, write_text
from wsi_pipeline.wording import counted


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The fold models of one training (CPU, eval mode), and what is needed to use them.

    spec         settings of the training; `specs` those of each model, which differ if the folds chose
    task         what they predict; `tasks` with the parameters that each fold learned from its training rows
    encoder      identity of the encoder whose features they take
    provenance   as passed to `save_ensemble`
    fingerprint  SHA-256 of config.json, which holds those of the weights: changes with any of them
    """

    models: tuple[MilModel, ...]
    spec: MilSpec
    task: Task
    feature_dim: int
    encoder: Mapping[str, Any]
    provenance: Mapping[str, Any]
    fingerprint: str
    specs: tuple[MilSpec, ...]
    tasks: tuple[Task, ...]

    def __repr__(self) -> str:
        what = " or ".join(self.classes) or self.task.name
        return f"<Ensemble {self.spec.model} on {self.encoder['name']}: {what}, {counted(len(self.models), 'model')}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or grades, in order; none if a number is predicted."""
        return self.task.classes

    def check_encoder(self, encoder: Mapping[str, Any]) -> None:
        """Raise MilError naming what differs, unless `encoder` is the one these models were trained on."""
        check_encoder(self.encoder, encoder)


def save_ensemble(
    folder: str | PathLike[str],
    models: Sequence[MilModel],
    *,
    spec: MilSpec,
    task: Task,
    encoder: Mapping[str, Any],
    provenance: Mapping[str, Any],
    specs: Sequence[MilSpec] | None = None,
    tasks: Sequence[Task] | None = None,
) -> None:
    """Write fold models and their config into `folder`; fold files of an earlier, larger ensemble are removed.

    specs, tasks   of each model, if they differ from `spec` and `task`: settings that the fold chose, `task.learned`

    `encoder` and `provenance` must be JSON values. Raises MilError for tasks of different kinds.
    """
    folder = Path(folder)
    specs, tasks = specs or [spec] * len(models), tasks or [task] * len(models)
    folds = []
    for number, (model, own_spec, own_task) in enumerate(zip(models, specs, tasks, strict=True)):
        check_alike(own_task, task)
        entry: dict[str, Any] = _save_fold(folder, number, model)
        if own_spec != spec:
            entry["spec"] = dataclasses.asdict(own_spec)
        if own_task != task:
            entry["task"] = own_task.to_json()
        folds.append(entry)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "task": task.to_json(),
        "spec": dataclasses.asdict(spec),
        "feature_dim": models[0].in_dim,
        "encoder": dict(encoder),
        "folds": folds,
        "provenance": dict(provenance),
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    for path in folder.glob("fold*.safetensors"):
        if re.fullmatch(r"fold\d+\.safetensors", path.name) and int(path.stem[4:]) >= len(models):
            path.unlink(missing_ok=True)


def load_ensemble(folder: str | PathLike[str]) -> Ensemble:
    """Read an ensemble; everything is checked before memory is allocated.

    Raises StoreError for files that are missing, damaged, of another format or version, or do not belong together.
    """
    folder = Path(folder)
    config, fingerprint = checked_config(folder)
    models = tuple(
        _load_fold(fold_file(folder, number), fold.spec, config.feature_dim, fold.task.n_outputs)
        for number, fold in enumerate(config.folds)
    )
    return Ensemble(
        models,
        config.spec,
        config.task,
        config.feature_dim,
        config.encoder,
        config.provenance,
        fingerprint,
        tuple(fold.spec for fold in config.folds),
        tuple(fold.task for fold in config.folds),
    )


def _save_fold(folder: Path, number: int, model: MilModel) -> dict[str, str]:
    path = fold_file(folder, number)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        # One entry only: safetensors writes several in any order, and equal models should be equal files.
        # Not safetensors' own writer: only the owner can read its files, but a cohort often belongs to a group.
        temporary.write_bytes(save(state, metadata={"format": f"{FORMAT} {VERSION}"}))
        return {"file": path.name, "sha256": sha256_of(temporary)}


def _load_fold(path: Path, spec: MilSpec, dim: int, n_outputs: int) -> MilModel:
    """The model of one file; shapes are compared with the header before anything is allocated."""
    with torch.device("meta"):
        model = build(spec, dim, n_outputs)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            shapes = {name: tuple(part.get_shape()) for name, part in found.items()}
            kinds = {part.get_dtype() for part in found.values()}
            if shapes != expected or kinds != {"F32"}:
                raise StoreError(f"{path}: {_difference(shapes, expected) or 'weights must be float32'}", todo=RETRAIN)
            state: dict[str, Tensor] = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} is not a safetensors file: {error}", todo=RETRAIN) from error
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise StoreError(f"{path}: {name} holds NaN or infinite values", todo=RETRAIN)
    if any((tensor <= 0).any() for name, tensor in state.items() if name.endswith("feature_std")):
        raise StoreError(f"{path}: feature_std must be positive", todo=RETRAIN)
    model.load_state_dict(state, assign=True)
    return model.eval()


def _difference(shapes: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    for name in sorted({*shapes, *expected}):
        if shapes.get(name) != expected.get(name):
            return f"{name} must be of shape {expected.get(name)}, got {shapes.get(name)}"
    return ""
