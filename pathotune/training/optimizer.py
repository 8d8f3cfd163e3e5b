"""The optimiser of a training run, with rates and decay by kind of parameter.

RAdam (Liu et al. 2020, arXiv 1908.03265) is the optimiser of the paper. It takes smaller steps at first: by its formula
a fifth of the rate at step 100, two fifths at step 315. So the best rate depends on the length of the training. AdamW
(Loshchilov and Hutter 2019, arXiv 1711.05101) with a warm-up has no such dependence.
"""

from __future__ import annotations

import torch
from torch import nn

from pathotune.checks import check_choice
from pathotune.model import PathoTune

OPTIMIZERS = ("radam", "adamw")
_NETWORKS = ("ivp.refine.", "ttp.project.", "head.")
_TOKENS = ("tokens", "ttp.text", "start", "scale", "_embed")


def make_optimizer(
    model: PathoTune,
    kind: str,
    learning_rate: float,
    network_rate: float,
    weight_decay: float,
    layer_decay: float = 1.0,
) -> torch.optim.Optimizer:
    """An optimiser (one of OPTIMIZERS) of the trained parameters.

    Each group has a `share` of the learning rate: `network_rate` for the matrices of refine module, text projection and
    head, 1 for everything else; of the backbone's own weights `layer_decay` to the power of the layers above. Prompt
    tokens, biases and norms do not decay.
    """
    check_choice("optimizer", kind, OPTIMIZERS)
    depth = len(model.backbone.blocks)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in model.trained_parameters().items():
        token = name.endswith(_TOKENS)
        share = network_rate if name.startswith(_NETWORKS) and not token else 1.0
        share *= layer_decay ** _layers_above(name, depth)
        groups.setdefault((0.0 if token or value.ndim < 2 else weight_decay, share), []).append(value)
    chosen = [{"params": found, "weight_decay": decay, "share": share} for (decay, share), found in groups.items()]
    if kind == "adamw":
        return torch.optim.AdamW(chosen, lr=learning_rate)
    return torch.optim.RAdam(chosen, lr=learning_rate, decoupled_weight_decay=True)


def _layers_above(name: str, depth: int) -> int:
    """How many layers of the backbone come after a weight of it; 0 for other parameters.

    The embedding counts as a layer below the first one, the last norm as part of the last.
    """
    if not name.startswith("backbone.") or name.startswith("backbone.norm."):
        return 0
    if name.startswith("backbone.blocks."):
        return depth - 1 - int(name.split(".")[2])
    return depth
