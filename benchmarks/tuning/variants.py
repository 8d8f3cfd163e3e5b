"""What the tables ask about instance prompts that no configuration offers.

free       (while training) as many free tokens in the place of those made from the image
shuffled   (at test)        each image gets the instance tokens of another
mean       (at test)        each image gets the mean of all instance tokens
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathotune.backbone import BackboneCard
from pathotune.model import PathoTune
from pathotune.training import probabilities
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import LabelledImages

Json = dict[str, Any]


class _Uncalibrated(nn.Identity):
    """In the place of a refine module that is not there."""

    def calibrate(self, images: Tensor) -> None:
        """Nothing to learn."""


class FreeTokens(nn.Module):
    """Instance prompts without the instance: the learned start alone."""

    def __init__(self, start: nn.Parameter) -> None:
        super().__init__()
        self.start = start
        self.refine = _Uncalibrated()

    def forward(self, images: Tensor) -> Tensor:
        """The same tokens (layers, B, n, D) for every image."""
        start = self.start if self.start.ndim == 3 else self.start.unsqueeze(0)
        return start.unsqueeze(1).expand(-1, len(images), -1, -1)


def apply(variant: str, model: PathoTune) -> None:
    """Change a model before it is trained."""
    if variant == "free":
        assert model.ivp is not None
        model.ivp = FreeTokens(model.ivp.start)  # type: ignore[assignment]
    elif variant:
        raise ValueError(f"variant must be free or empty, got {variant!r}")


def at_test(
    model: PathoTune,
    card: BackboneCard,
    images: LabelledImages,
    judge: Callable[[NDArray[np.float32]], Json],
    device: str,
) -> Json:
    """Scores with the instance tokens of other images, and with their mean; nothing for models without a VRM."""
    if model.ivp is None or isinstance(model.ivp, FreeTokens):
        return {}
    found = {}
    for name, change in (("shuffled", _shifted), ("mean", _mean)):
        inner = model.ivp.forward
        model.ivp.__dict__["forward"] = lambda given, inner=inner, change=change: change(inner(given))
        found[name] = judge(probabilities(model, card, images, Compute(device), batch=128))
        del model.ivp.__dict__["forward"]
    return found


def _shifted(tokens: Tensor) -> Tensor:
    """Images of a batch lie in random order, so a neighbour is an image drawn at random."""
    return torch.roll(tokens, 1, dims=1)


def _mean(tokens: Tensor) -> Tensor:
    return tokens.mean(dim=1, keepdim=True).expand_as(tokens)
