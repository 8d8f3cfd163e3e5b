"""What the tables ask about instance prompts that no configuration offers.

free       (while training) as many free tokens in the place of those made from the image
shuffled   (at test)        each image gets the instance tokens of another
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathotune.backbone import BackboneCard
from pathotune.model import PathoTune
from pathotune.prompts import LayerInstancePrompts
from pathotune.refine import LayerRefineModule
from pathotune.training import probabilities
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import LabelledImages

Json = dict[str, Any]


def _without_image(
    refine: LayerRefineModule, normed: Tensor, prefix: int, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Instance prompts without the instance: the learned start alone; the correction as it is."""
    _, correction = LayerRefineModule.forward(refine, normed, prefix, grid)
    return refine.start.expand(len(normed), -1, -1), correction


def apply(variant: str, model: PathoTune) -> None:
    """Change a model before it is trained."""
    if variant == "free":
        assert isinstance(model.ivp, LayerInstancePrompts)
        for refine in model.ivp.refine:
            refine.forward = MethodType(_without_image, refine)  # type: ignore[method-assign]
            for part in (refine.look, refine.out):
                part.requires_grad_(False)
            refine.scale.requires_grad_(False)
    elif variant:
        raise ValueError(f"variant must be free or empty, got {variant!r}")


def at_test(
    model: PathoTune,
    card: BackboneCard,
    images: LabelledImages,
    judge: Callable[[NDArray[np.float32]], Json],
    device: str,
) -> Json:
    """Scores with the instance tokens of other images; nothing for models without a VRM."""
    if not isinstance(model.ivp, LayerInstancePrompts) or "forward" in vars(model.ivp.refine[0]):
        return {}
    inner = model.ivp.forward
    model.ivp.__dict__["forward"] = lambda *given: _shifted(*inner(*given))
    found = judge(probabilities(model, card, images, Compute(device), batch=128))
    del model.ivp.__dict__["forward"]
    return {"shuffled": found}


def _shifted(tokens: Tensor, correction: Tensor) -> tuple[Tensor, Tensor]:
    """Images of a batch lie in random order, so a neighbour is an image drawn at random."""
    return torch.roll(tokens, 1, dims=0), correction
