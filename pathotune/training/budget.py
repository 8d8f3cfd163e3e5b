"""How much of a backbone may train: as in the paper, at most 5.9 % of its parameters."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from pathotune.config import PathoTuneConfig
from pathotune.model import PathoTune
from pathotune.prompts import LayerInstancePrompts, TaskTextualPrompts

MOST_TRAINED = 0.059
"""Trained parameters as a fraction of the backbone's (Lu et al. 2024, arXiv 2403.16497)."""


def within_budget(config: PathoTuneConfig, backbone: nn.Module, text_states: Tensor | None = None) -> PathoTune:
    """A model before training, with the refine modules' rank lowered until at most `MOST_TRAINED` of it trains.

    `vrm_rank` is then the most that is used: a small backbone gets less. Models without refine modules in their layers,
    and those that train the backbone itself, stay as they are. So does a model that trains too much at rank 1, with a
    head of thousands of classes: `PathoTune.trained_fraction` tells. Errors are those of PathoTune.
    """
    model = PathoTune(config, backbone, text_states)
    if config.backbone != "frozen" or not isinstance(model.ivp, LayerInstancePrompts):
        return model
    most = MOST_TRAINED * model.backbone_parameters
    others = sum(value.numel() for value in model.trained_parameters().values()) - _count(model.ivp)
    layers, dim = len(model.ivp.refine), int(model.backbone.embed_dim)

    def trained(rank: int) -> int:
        with torch.device("meta"):
            return others + _count(LayerInstancePrompts(layers, config.ivp_tokens, dim, rank, 1.0))

    rank = next((rank for rank in range(config.vrm_rank, 1, -1) if trained(rank) <= most), 1)
    if rank == config.vrm_rank:
        return model
    states = model.ttp.states if isinstance(model.ttp, TaskTextualPrompts) else text_states
    return PathoTune(replace(config, vrm_rank=rank), backbone, states)


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
