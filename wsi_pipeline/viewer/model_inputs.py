"""What a trained model needs from features, by the files of its training; read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsi_pipeline.config.registries import EVEN_MODELS
from wsi_pipeline.errors import MilError, StoreError
from wsi_pipeline.mil.trained.model_config import CONFIG, check_encoder, read_config
from wsi_pipeline.stages.inputs.alike import differing_patches
from wsi_pipeline.stages.results.finished import METRICS
from wsi_pipeline.store.schema import Header


@dataclass(frozen=True)
class ModelInputs:
    """The features that the models of one training take.

    encoder, specs   identity of their encoder; settings of segment, tile and embed
    attends          whether patches get attention that differs: not with the mean of all
    stored           whether the run has these features: not those of prompts tuned in each fold
    """

    encoder: Mapping[str, Any]
    specs: Mapping[str, Mapping[str, Any]]
    attends: bool
    stored: bool

    def check(self, header: Header) -> None:
        """Raise MilError unless features, by the header of their store, are such as the models take."""
        if not self.stored:
            raise MilError("the model takes features of prompts tuned in each fold, which the run does not keep")
        check_encoder(self.encoder, header.extra["encoder"])
        differing = differing_patches(header.specs, self.specs)
        if differing:
            raise MilError(
                f"the features differ from those the model was trained on: {', '.join(differing)}",
                todo="Train again with: wsi-pipeline train-mil",
            )


def model_inputs(folder: Path) -> ModelInputs:
    """What the training in `folder` states. Raises StoreError if its files are missing or damaged."""
    try:
        marks = tuple((folder / name).stat().st_mtime_ns for name in (CONFIG, METRICS))
    except OSError:
        raise StoreError(f"no trained model in {folder}", todo="Train one with: wsi-pipeline train-mil") from None
    return _read(folder, marks)


@lru_cache(maxsize=256)
def _read(folder: Path, marks: tuple[int, ...]) -> ModelInputs:
    """The same; `marks` are the times at which the files were written."""
    config = read_config(folder / CONFIG)
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / METRICS} cannot be read: {error}") from None
    models = {fold.spec.model for fold in config.folds}
    specs = config.provenance.get("specs") or {}
    return ModelInputs(config.encoder, specs, not models <= set(EVEN_MODELS), "prompts" not in metrics)
