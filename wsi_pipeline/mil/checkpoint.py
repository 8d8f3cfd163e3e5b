"""A trained ensemble on disk: config.json and one safetensors file a fold. Numbers and JSON only, nothing that runs.

    config.json         format, version, task, spec, classes, feature_dim, encoder, folds (file, sha256), provenance
    fold0.safetensors   weights and standardisation of the model of fold 0, float32
    ...

Every file appears whole or not at all; config.json comes last and knows the others by their SHA-256, so a
folder whose writing was cut short is recognised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wsi_pipeline.atomic import atomic_path, write_text
from wsi_pipeline.errors import MilError, StoreError, UsageError
from wsi_pipeline.fields import from_mapping
from wsi_pipeline.mil.models import MIL_MODELS, MilModel, build_model
from wsi_pipeline.specs import MilSpec

FORMAT, VERSION = "wsi-pipeline-mil", 1
CONFIG = "config.json"

_MAX_CONFIG_BYTES = 16 << 20
_MAX_DIM, _MAX_CLASSES, _MAX_FOLDS = 1 << 16, 1 << 10, 1 << 10
_RETRAIN = "Train it again with: wsi-pipeline train-mil"


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The fold models of one training (CPU, eval mode) and all that is needed to use them.

    encoder      identity of the encoder whose features they take
    provenance   whatever was passed in when it was saved
    fingerprint  SHA-256 of config.json, which holds those of the weights: changes when anything does
    """

    models: tuple[MilModel, ...]
    spec: MilSpec
    classes: tuple[str, ...]
    feature_dim: int
    encoder: Mapping[str, Any]
    provenance: Mapping[str, Any]
    fingerprint: str

    def check_encoder(self, encoder: Mapping[str, Any]) -> None:
        """Raise MilError naming what differs, unless `encoder` is the one these models were trained on."""
        differing = sorted(key for key in {*self.encoder, *encoder} if self.encoder.get(key) != encoder.get(key))
        if differing:
            details = "; ".join(f"{key} {encoder.get(key)!r}, not {self.encoder.get(key)!r}" for key in differing)
            raise MilError(
                f"the features are of another encoder than this model was trained on: {details}",
                todo="Embed the slides with the model's encoder, or train on these features.",
            )


def save_ensemble(
    folder: Path,
    models: Sequence[MilModel],
    *,
    spec: MilSpec,
    classes: Sequence[str],
    encoder: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write fold models and their config into `folder`; fold files of an earlier, larger ensemble are removed.

    `encoder` and `provenance` must be JSON values.
    """
    config = {
        "format": FORMAT,
        "version": VERSION,
        "task": "classification",
        "spec": dataclasses.asdict(spec),
        "classes": list(classes),
        "feature_dim": models[0].in_dim,
        "encoder": dict(encoder),
        "folds": [_save_fold(folder, number, model) for number, model in enumerate(models)],
        "provenance": dict(provenance),
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    for path in folder.glob("fold*.safetensors"):
        if re.fullmatch(r"fold\d+\.safetensors", path.name) and int(path.stem[4:]) >= len(models):
            path.unlink(missing_ok=True)


def load_ensemble(folder: Path) -> Ensemble:
    """Read an ensemble back, everything checked before memory is taken for it.

    Raises StoreError for files that are missing, damaged, of another format or version, or not of one piece.
    """
    config = _read_config(folder / CONFIG)
    spec, classes, dim = _read_spec(folder / CONFIG, config), config["classes"], config["feature_dim"]
    models = []
    for number, entry in enumerate(config["folds"]):
        path = folder / f"fold{number}.safetensors"
        _check_sum(path, entry)
        models.append(_load_fold(path, spec, dim, len(classes)))
    fingerprint = _sha256(folder / CONFIG)
    return Ensemble(tuple(models), spec, tuple(classes), dim, config["encoder"], config["provenance"], fingerprint)


def _save_fold(folder: Path, number: int, model: MilModel) -> dict[str, str]:
    path = folder / f"fold{number}.safetensors"
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        # One entry only: safetensors writes several in any order, and equal models should be equal files.
        # Not safetensors' own writer: its files are for their owner alone, and a cohort is often a group's.
        temporary.write_bytes(save(state, metadata={"format": f"{FORMAT} {VERSION}"}))
        return {"file": path.name, "sha256": _sha256(temporary)}


def _load_fold(path: Path, spec: MilSpec, dim: int, n_classes: int) -> MilModel:
    """The model of one file; shapes are compared with the header before anything is allocated."""
    with torch.device("meta"):
        model = build_model(spec, dim, n_classes)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            shapes = {name: tuple(part.get_shape()) for name, part in found.items()}
            kinds = {part.get_dtype() for part in found.values()}
            if shapes != expected or kinds != {"F32"}:
                raise StoreError(f"{path}: {_difference(shapes, expected) or 'weights must be float32'}", todo=_RETRAIN)
            state: dict[str, Tensor] = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} is no safetensors file: {error}", todo=_RETRAIN) from error
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise StoreError(f"{path}: {name} holds NaN or infinite values", todo=_RETRAIN)
    if (state["feature_std"] <= 0).any():
        raise StoreError(f"{path}: feature_std must be positive", todo=_RETRAIN)
    model.load_state_dict(state, assign=True)
    return model.eval()


def _difference(shapes: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    for name in sorted({*shapes, *expected}):
        if shapes.get(name) != expected.get(name):
            return f"{name} must be of shape {expected.get(name)}, got {shapes.get(name)}"
    return ""


def _check_sum(path: Path, entry: Mapping[str, str]) -> None:
    if not path.is_file():
        raise StoreError(f"{path} is missing", todo=_RETRAIN)
    if _sha256(path) != entry["sha256"]:
        raise StoreError(f"{path} is not the file that {CONFIG} beside it was written with", todo=_RETRAIN)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_config(path: Path) -> dict[str, Any]:
    """The config, format and every field's type and range checked."""
    if not path.is_file():
        raise StoreError(f"{path} is missing", todo=_RETRAIN)
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise StoreError(f"{path} must be at most {_MAX_CONFIG_BYTES} bytes, got {path.stat().st_size}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is no JSON: {error}", todo=_RETRAIN) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise StoreError(f"{path} is no config of a slide-level model (format {FORMAT})")
    if config.get("version") != VERSION:
        raise StoreError(
            f"{path} is of format version {config.get('version')!r}; this program reads version {VERSION}",
            todo="Use the version of wsi-pipeline that wrote it, or train it again.",
        )
    for field, (expected, test) in _FIELDS.items():
        if not test(config.get(field)):
            raise StoreError(f"{path}: {field} must be {expected}", todo=_RETRAIN)
    return config


def _read_spec(path: Path, config: Mapping[str, Any]) -> MilSpec:
    try:
        spec = from_mapping(MilSpec, config["spec"], f"{path}: spec")
        MIL_MODELS.get(spec.model)
        return spec
    except UsageError as error:
        raise StoreError(error.what, todo=error.todo) from error


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 2 <= len(value) <= _MAX_CLASSES
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    )


def _is_folds(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= _MAX_FOLDS
        and all(isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in value)
    )


_FIELDS: dict[str, tuple[str, Any]] = {
    "task": ("classification", lambda value: value == "classification"),
    "spec": ("an object", lambda value: isinstance(value, dict)),
    "classes": (f"2 to {_MAX_CLASSES} different names", _is_names),
    "feature_dim": (f"1 to {_MAX_DIM}", lambda value: type(value) is int and 1 <= value <= _MAX_DIM),
    "encoder": ("an object", lambda value: isinstance(value, dict)),
    "folds": (f"a list of 1 to {_MAX_FOLDS} objects with sha256", _is_folds),
    "provenance": ("an object", lambda value: isinstance(value, dict)),
}
