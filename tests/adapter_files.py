"""Adapters and their backbones as small real files, as a user's tuning would leave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from pathotune import PathoTune, PathoTuneConfig, open_backbone, save_adapter
from pathotune.adapters import configure
from wsi_pipeline.cohort.patient_hashes import name_hashes

BACKBONE = "test_vit"
"""timm's smallest plain ViT: 6 layers, 64 wide, patches of 16 px."""

CLASSES = ("stroma", "tumour", "fat")
INPUT_PX = 64


def write_backbone(path: Path, seed: int = 0) -> Path:
    """Random weights of BACKBONE that keep activations apart, as a safetensors file."""
    torch.manual_seed(seed)
    network = timm.create_model(BACKBONE, pretrained=False, num_classes=0)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.2 if value.ndim > 1 else 0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path)
    return path


def write_adapter(
    path: Path,
    weights: Path | None,
    method: str = "pathotune",
    *,
    backbone: str = BACKBONE,
    seed: int = 0,
    patches: Mapping[str, Any] | None = None,
    classes: tuple[str, ...] = CLASSES,
    groups: tuple[str, ...] = (),
    **fields: Any,
) -> Path:
    """An adapter of any method, its trained values set at random; `weights` and `groups` are recorded as tune does.

    patches   mpp and patch_px of the patches it was tuned on, where they are not 0.5 and 128
    """
    network, card = open_backbone(backbone, weights, input_px=INPUT_PX)
    config = configure(method, classes=classes, **fields)
    model = tuned_at_random(config, network, seed)
    recorded = None if weights is None else str(weights)
    provenance = {
        "method": method,
        "mpp": 0.5,
        "patch_px": 128,
        **(patches or {}),
        "weights": recorded,
        "groups": name_hashes(groups),
    }
    save_adapter(path, model, card, provenance=provenance)
    return path


def tuned_at_random(config: PathoTuneConfig, network: torch.nn.Module, seed: int) -> PathoTune:
    """The model of a configuration, as if tuned: no value is where it was initialised, and the head is decided."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn((len(config.tasks), config.ttp_tokens, 20), generator=generator) if config.ttp else None
    torch.manual_seed(seed)
    model = PathoTune(config, network, states)
    with torch.no_grad():
        for name, value in model.trained_parameters().items():
            scale = 1.0 if name.startswith("head") else 0.05
            value.add_(scale * torch.randn(value.shape, generator=generator))
    return model
