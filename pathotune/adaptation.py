"""What of the backbone itself trains: nothing, low-rank updates, or everything.

Sources: Hu et al. 2021, arXiv 2106.09685 (LoRA), through the library peft.
"""

from __future__ import annotations

import torch
from torch import nn

from pathotune.backbone import Backbone
from pathotune.config import PathoTuneConfig

LORA_TARGET = "qkv"
"""The layer of each block that LoRA updates: queries, keys and values in one matrix."""


def adapt(vit: Backbone, config: PathoTuneConfig) -> None:
    """Freeze a backbone in place, then let train what `config.backbone` names of it. It is left in eval mode.

    LoRA's layers are put in on the backbone's device, or on `meta` where that is the default device.
    """
    vit.requires_grad_(False).eval()
    if config.backbone == "lora":
        _inject(vit, config)
    for parameter in adapted(vit, config).values():
        parameter.requires_grad_(True)
    vit.eval()


def adapted(vit: Backbone, config: PathoTuneConfig) -> dict[str, nn.Parameter]:
    """The parameters of the backbone that train, by name; a classification head is never among them."""
    if config.backbone == "frozen":
        return {}
    chosen = "lora_" if config.backbone == "lora" else ""
    return {name: value for name, value in vit.named_parameters() if chosen in name and not name.startswith("head.")}


def _inject(vit: Backbone, config: PathoTuneConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    options = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=[LORA_TARGET])
    # peft puts new layers where the layer they wrap is; a model about to be filled from a file wants them on `meta`.
    later = torch.get_default_device().type == "meta"
    inject_adapter_in_model(options, vit, low_cpu_mem_usage=later)
