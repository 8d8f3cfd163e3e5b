"""Checkpoint of a training run after an epoch: all that is needed to resume with the same result."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pathotune.adapterfile import read_raw, write_raw
from pathotune.errors import AdapterError

log = logging.getLogger(__name__)

KIND = "pathotune-training"
NAME = "last-epoch.safetensors"


@dataclass(frozen=True)
class EpochRow:
    """One epoch. Losses are means over images; seconds are wall-clock time including validation."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    learning_rate: float
    seconds: float


@dataclass
class Progress:
    """Progress of a training run, stored with the model. `best` holds the trained tensors of `best_epoch`."""

    history: list[EpochRow] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


def store(
    folder: Path, model: nn.Module, optimizer: Optimizer, progress: Progress, state: Mapping[str, Tensor], key: str
) -> None:
    """Write a checkpoint, completely or not at all. `key` identifies what is being trained."""
    tensors = {f"last.{name}": value for name, value in state.items()}
    tensors |= {f"best.{name}": value for name, value in progress.best.items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter, values in optimizer.state.items():
        tensors |= {f"optimizer.{names[id(parameter)]}.{what}": value for what, value in values.items()}
    history = [dataclasses.asdict(row) for row in progress.history]
    write_raw(folder / NAME, tensors, {"key": key, "history": history, "best_epoch": progress.best_epoch}, KIND)


def restore(folder: Path, model: nn.Module, optimizer: Optimizer, key: str) -> Progress | None:
    """Restore model and optimiser from the checkpoint. Returns None if there is none or it is of another run."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        raw = read_raw(path, KIND)
        tensors = load_file(path)
    except (AdapterError, OSError) as error:
        log.warning("training starts over: %s", error)
        return None
    if raw.document.get("key") != key:
        log.info("training starts over: the state in %s belongs to other settings or data", path)
        return None
    _fill(model, optimizer, tensors)
    rows = [EpochRow(**row) for row in raw.document["history"]]
    log.info("training resumes after epoch %d", len(rows))
    return Progress(rows, int(raw.document["best_epoch"]), _under(tensors, "best."))


def _fill(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters, state = dict(model.named_parameters()), model.state_dict()
    for name, value in _under(tensors, "last.").items():
        state[name].copy_(value)
    for full, value in _under(tensors, "optimizer.").items():
        name, _, what = full.rpartition(".")
        kept: dict[str, Any] = optimizer.state[parameters[name]]
        # RAdam keeps its step count on the CPU.
        kept[what] = value if what == "step" else value.to(parameters[name].device)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
