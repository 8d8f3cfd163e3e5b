"""What a model looks at: attention of [CLS] by kind of token, how much [CLS] varies, and where gradients go.

Prompts can fail silently: they take all attention of [CLS] and hide the image from it, or get none and change nothing.
Compare a tuned model with the bare backbone, `PathoTune(configure("linear"), backbone)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pathotune.model import PathoTune
from pathotune.tokens import KINDS

PLACES = ("cls", "registers", *KINDS, "image")
"""Kinds of tokens, in sequence order."""


@dataclass(frozen=True)
class Diagnosis:
    """A model on some images. All tuples have a number per layer.

    attention  share of the attention of [CLS] that each kind of token in PLACES gets, mean over heads and images; the
               shares of a layer sum to 1
    variation  standard deviation of [CLS] between images after each layer, over the mean length of [CLS]
    gradient   share of each part (tvp, ttp, ivp, head, backbone) in the squared length of the loss's gradient; {}
               without labels
    """

    attention: Mapping[str, tuple[float, ...]]
    variation: tuple[float, ...]
    gradient: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def diagnose(model: PathoTune, images: Tensor, labels: Tensor | None = None, task: Tensor | None = None) -> Diagnosis:
    """Pass normalised images (B, 3, H, W) through the model once; with labels (B,), its gradient is measured too.

    The model is left in eval mode, without gradients. It should be on the device of the images.
    """
    model.eval()
    attention: list[dict[str, float]] = []
    variation: list[float] = []
    # The whole sequence is computed, because `features` may leave out the prompts' outputs.
    with _watched(model, attention, variation), torch.inference_mode():
        model.tokens(images, task)
    gradient: dict[str, float] = {}
    if labels is not None and model.head is not None:
        gradient = _gradient(model, F.cross_entropy(model.logits(images, task).float(), labels))
    shares = {kind: tuple(layer[kind] for layer in attention) for kind in PLACES}
    return Diagnosis(shares, tuple(variation), gradient)


@contextmanager
def _watched(model: PathoTune, attention: list[dict[str, float]], variation: list[float]) -> Iterator[None]:
    """Append to both lists as each layer computes."""

    def look(number: int, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        attention.append(_shares(model, number, _attention(layer, given[0])))

    before: list[Tensor] = []

    def vary(change: Tensor) -> None:
        cls = before.pop().float() + change[:, 0].float()
        variation.append(float(cls.std(dim=0, correction=0).norm() / cls.norm(dim=1).mean()))

    hooks = []
    for number, block in enumerate(model.backbone.blocks):
        hooks.append(block.attn.register_forward_pre_hook(lambda layer, given, at=number: look(at, layer, given)))
        # A layer's output is what enters its second norm, plus what follows: a layer with a correction is not called.
        hooks.append(block.norm2.register_forward_pre_hook(lambda _, given: before.append(given[0][:, 0])))
        hooks.append(block.ls2.register_forward_hook(lambda _, given, out: vary(out)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _attention(layer: Any, normed: Tensor) -> Tensor:
    """How [CLS] divides its attention: (B, heads, T), rows sum to 1."""
    batch, count, _ = normed.shape
    heads = layer.num_heads
    queries, keys, _ = layer.qkv(normed).reshape(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4).float()
    queries, keys = layer.q_norm(queries[:, :, :1]), layer.k_norm(keys)
    weights: Tensor = (queries @ keys.transpose(-2, -1) * layer.scale).softmax(dim=-1)
    return weights[:, :, 0]


def _shares(model: PathoTune, number: int, attention: Tensor) -> dict[str, float]:
    layout, mean = model.layout, attention.mean(dim=(0, 1))
    if number < model.entry:
        layout = type(layout)(layout.registers)
    return {place: float(mean[layout.place(place)].sum()) for place in PLACES}


def _gradient(model: PathoTune, loss: Tensor) -> dict[str, float]:
    parameters = model.trained_parameters()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    lengths: dict[str, float] = {}
    for name, value in zip(parameters, found, strict=True):
        part = name.partition(".")[0]
        lengths[part] = lengths.get(part, 0.0) + (0.0 if value is None else float(value.float().square().sum()))
    total = sum(lengths.values()) or 1.0
    return {part: length / total for part, length in lengths.items()}
