"""Adapter files: the trained tensors, the text's tokens and what is needed to use them; a few MB.

Of textual prompts a file holds the tokens that the trained projection gave (format version 2), unless the projection
itself is smaller, as with very many tasks. Files of version 1 hold the projection and the text encoder's states.

The file is checked before memory is allocated for its tensors. It loads only on the backbone it was tuned on, because
prompts mean nothing to other weights.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import pathotune
from pathotune.adapterfile import RawAdapter, read_raw, write_raw
from pathotune.backbone import BackboneCard, check_plain, fingerprint
from pathotune.config import PathoTuneConfig
from pathotune.errors import AdapterError, ConfigError
from pathotune.model import PathoTune
from pathotune.prompts import TaskTextualPrompts
from pathotune.text import render_all

_TEXT, _TEXT_STATES = "ttp.text", "ttp.states"
_MAX_TEXT_WIDTH = 1 << 14
_GEOMETRY = ("dim", "layers", "patch_px", "registers")
_BEFORE = {"entry": 0.0, "start": "random", "ivp_read": False}
"""Values of configuration fields that did not exist when the first adapters were written."""
_REMAKE = "Use the file as it was saved, or tune again."


@dataclass(frozen=True)
class AdapterInfo:
    """Description of an adapter, from the header of its file.

    config       the configuration, with class names and template
    texts        the rendered text of each task; () if TTP are off
    backbone     how the backbone is built and images are prepared
    fingerprint  fingerprint of the backbone's weights (`pathotune.backbone.fingerprint`)
    geometry     the backbone's dim, layers, patch_px and registers
    metrics      metrics of the tuning run, as passed to `save_adapter`
    versions     versions of the libraries that wrote the file
    provenance   anything else passed to `save_adapter`, such as mpp and data
    nbytes       total size of its tensors in bytes
    """

    config: PathoTuneConfig
    texts: tuple[str, ...]
    backbone: BackboneCard
    fingerprint: str
    geometry: Mapping[str, int]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    provenance: Mapping[str, Any]
    nbytes: int


def save_adapter(
    path: str | PathLike[str],
    model: PathoTune,
    backbone: BackboneCard,
    *,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write what a model adds to its backbone. `metrics` and `provenance` must be JSON values.

    Equal models give equal files; a loaded model gives the same features in float32, bit for bit. Raises AdapterError
    for values that are not JSON and tensors that are not finite.
    """
    path, state = Path(path), _stored_state(model)
    _check_finite(state, path)
    document = {
        "config": model.config.to_dict(),
        "texts": list(render_all(model.config)) if model.config.ttp else [],
        "backbone": {
            **backbone.to_dict(),
            "fingerprint": model.fingerprint,
            "geometry": geometry(model.backbone),
        },
        "metrics": dict(metrics or {}),
        "versions": _versions(),
        "provenance": dict(provenance or {}),
    }
    write_raw(path, state, document)


def read_adapter(path: str | PathLike[str]) -> AdapterInfo:
    """Read an adapter's description from its header only. Raises AdapterError unless it is a sound adapter file."""
    path = Path(path)
    return _info(read_raw(path), path)


def load_adapter(path: str | PathLike[str], backbone: nn.Module) -> PathoTune:
    """Load an adapter onto its backbone: a model in eval mode, on the backbone's device. Needs no text encoder.

    Raises AdapterError if the file is damaged or malicious, or the backbone is not the one it was tuned on.
    """
    path = Path(path)
    raw = read_raw(path)
    info = _info(raw, path)
    vit = check_plain(backbone)
    _check_backbone(info, vit, path)
    with torch.device("meta"):
        model = PathoTune(info.config, vit, _text_shape(raw, info.config, path))
        if isinstance(model.ttp, TaskTextualPrompts) and _TEXT in raw.shapes:
            model.ttp = model.ttp.stored()
    _check_shapes(raw, model.adapter_state(), path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path} cannot be read: {error}", todo=_REMAKE) from None
    _check_finite(state, path)
    device = vit.patch_embed.proj.weight.device
    model.load_state_dict({name: value.to(device) for name, value in state.items()}, strict=False, assign=True)
    return model.eval()


def geometry(backbone: nn.Module) -> dict[str, int]:
    """The dimensions of a plain ViT that determine the shapes of an adapter's tensors; patch_px in pixels."""
    vit = check_plain(backbone)
    return {
        "dim": int(vit.embed_dim),
        "layers": len(vit.blocks),
        "patch_px": int(vit.patch_embed.patch_size[0]),
        "registers": int(vit.num_reg_tokens),
    }


def _check_backbone(info: AdapterInfo, vit: nn.Module, path: Path) -> None:
    here = geometry(vit)
    differing = [
        f"{key} {here[key]}, not {info.geometry.get(key)}" for key in here if here[key] != info.geometry.get(key)
    ]
    if not differing and (found := fingerprint(vit)) != info.fingerprint:
        differing = [f"weights {found[:12]}, not {info.fingerprint[:12]}"]
    if differing:
        raise AdapterError(
            f"{path} was tuned on {info.backbone.name}; this is a different backbone: {'; '.join(differing)}",
            todo="Open the backbone with the weights the adapter was tuned on, in float32, or tune again on this one.",
        )


def _stored_state(model: PathoTune) -> dict[str, Tensor]:
    """The tensors of an adapter file: the model's own, with the text's tokens for the projection if that is smaller."""
    state = model.adapter_state()
    if not isinstance(model.ttp, TaskTextualPrompts):
        return state
    stored = {f"ttp.{name}": value for name, value in model.ttp.stored().state_dict().items()}
    whole = {name: value for name, value in state.items() if name.startswith("ttp.")}
    if sum(value.numel() for value in stored.values()) >= sum(value.numel() for value in whole.values()):
        return state
    return {name: value for name, value in state.items() if name not in whole} | stored


def _text_shape(raw: RawAdapter, config: PathoTuneConfig, path: Path) -> Tensor | None:
    """A placeholder for the text states: shape from the configuration, width from the file; 1 if it has none."""
    if not config.ttp:
        return None
    if _TEXT in raw.shapes:
        return torch.empty((len(config.tasks), config.ttp_tokens, 1), device="meta")
    shape = raw.shapes.get(_TEXT_STATES, ())
    wanted = (len(config.tasks), config.ttp_tokens)
    if len(shape) != 3 or shape[:2] != wanted or not 1 <= shape[2] <= _MAX_TEXT_WIDTH:
        raise AdapterError(f"{path}: {_TEXT_STATES} must be of shape {(*wanted, 'H')}, got {shape}", todo=_REMAKE)
    return torch.empty(shape, device="meta")


def _check_shapes(raw: RawAdapter, expected: Mapping[str, Tensor], path: Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for name in sorted({*wanted, *raw.shapes}):
        if raw.shapes.get(name) != wanted.get(name):
            raise AdapterError(
                f"{path}: {name} must be of shape {wanted.get(name)}, got {raw.shapes.get(name)}", todo=_REMAKE
            )


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise AdapterError(
                f"{path}: {name} holds NaN or infinite values", todo="Tune again, perhaps with a lower learning rate."
            )


def _info(raw: RawAdapter, path: Path) -> AdapterInfo:
    document = raw.document
    try:
        config = PathoTuneConfig.from_dict({**_BEFORE, **dict(document.get("config", {}))})
    except (ConfigError, TypeError, ValueError) as error:
        what, todo = (error.what, error.todo) if isinstance(error, ConfigError) else (str(error), None)
        raise AdapterError(f"{path}: {what}", todo=todo or _REMAKE) from None
    try:
        facts = dict(document["backbone"])
        print_, shape = str(facts.pop("fingerprint")), _geometry(facts.pop("geometry"))
        card = BackboneCard(**{**facts, "mean": _triple(facts["mean"]), "std": _triple(facts["std"])})
        return AdapterInfo(
            config,
            tuple(str(text) for text in document["texts"]),
            card,
            print_,
            shape,
            dict(document["metrics"]),
            dict(document["versions"]),
            dict(document["provenance"]),
            raw.nbytes,
        )
    except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
        raise AdapterError(f"{path} is damaged: its description is incomplete ({error})", todo=_REMAKE) from None


def _geometry(values: Any) -> dict[str, int]:
    """The four numbers of `geometry`, from a file."""
    found = dict(values)
    if set(found) != set(_GEOMETRY) or not all(type(value) is int for value in found.values()):
        raise ValueError(f"geometry must be whole numbers for {', '.join(_GEOMETRY)}")
    return found


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _versions() -> dict[str, str]:
    return {
        "pathotune": pathotune.__version__,
        "python": platform.python_version(),
        "safetensors": safetensors.__version__,
        "timm": timm.__version__,
        "torch": torch.__version__,
    }
