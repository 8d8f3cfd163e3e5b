"""Which parameters of the backbone are trained: none, low-rank updates (LoRA), or all.

LoRA comes from the library peft. Source: Hu et al. 2021, arXiv 2106.09685.
"""

from __future__ import annotations

import torch
from torch import nn

from pathotune.backbone import Backbone
from pathotune.config import PathoTuneConfig

LORA_TARGET = "qkv"
"""The layer that LoRA updates in each block: the joint projection to queries, keys and values."""


def adapt(vit: Backbone, config: PathoTuneConfig) -> None:
    """Freeze a backbone in place, then unfreeze what `config.backbone` selects. The backbone is left in eval mode.

    LoRA layers are created on the backbone's device, or on `meta` if that is torch's default device.
    """
    vit.requires_grad_(False).eval()
    if config.backbone == "lora":
        _inject(vit, config)
    for parameter in adapted(vit, config).values():
        parameter.requires_grad_(True)
    vit.eval()


def adapted(vit: Backbone, config: PathoTuneConfig) -> dict[str, nn.Parameter]:
    """Trainable parameters of the backbone by name. Its classification head is never trained."""
    if config.backbone == "frozen":
        return {}
    chosen = "lora_" if config.backbone == "lora" else ""
    return {name: value for name, value in vit.named_parameters() if chosen in name and not name.startswith("head.")}


def _inject(vit: Backbone, config: PathoTuneConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    options = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=[LORA_TARGET])
    # peft creates new layers on the device of the layer they wrap; a model that is about to be loaded needs `meta`.
    later = torch.get_default_device().type == "meta"
    inject_adapter_in_model(options, vit, low_cpu_mem_usage=later)
