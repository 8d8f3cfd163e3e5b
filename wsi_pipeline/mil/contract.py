"""What every slide-level model is: ragged bags in, logits and attention out, behind one standardisation.

A model of the registry is a *network*: a module called as `network(features, offsets, targets) -> MilOutput` on
standardised float32 features, made by `Network(in_dim, n_outputs, spec)`. `MilModel` wraps it with what all share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.errors import MilError
from wsi_pipeline.registry import Registry
from wsi_pipeline.specs import MilSpec

Network = Callable[[int, int, MilSpec], nn.Module]

MIL_MODELS: Registry[Network] = Registry("MIL model")


@dataclass(frozen=True, eq=False)
class MilOutput:
    """What a network says of some bags.

    logits     (B, C), one row a bag
    attention  (sum N,), one weight an instance, summing to 1 within each bag
    auxiliary  (B,) a loss of the network's own for each bag, already weighted, to be added to the objective's; only
               in training, where targets were given and the paper asks for it
    """

    logits: Tensor
    attention: Tensor
    auxiliary: Tensor | None = None


class Contributing(Protocol):
    """What every network can say beside its forward pass."""

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """How much each instance moves each logit, (sum N, C), from standardised features (sum N, D)."""


class MilModel(nn.Module):
    """A network behind the standardisation of its training fold.

    Features of any float type (sum N, D) become float32, less the mean and over the standard deviation of the
    training instances, which are buffers: they travel with the weights. Offsets are int64 (B + 1).
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, network: nn.Module, in_dim: int, n_outputs: int) -> None:
        super().__init__()
        self.network = network
        self.in_dim = in_dim
        self.n_outputs = n_outputs
        self.register_buffer("feature_mean", torch.zeros(in_dim))
        self.register_buffer("feature_std", torch.ones(in_dim))

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Logits (B, C) and attention (sum N,); `targets` int64 (B,) are class codes, for auxiliary losses.

        Raises MilError for features of another width.
        """
        return cast(MilOutput, self.network(self._standard(features), offsets, targets))

    def _standard(self, features: Tensor) -> Tensor:
        if features.ndim != 2 or features.shape[1] != self.in_dim:
            raise MilError(f"this model takes features of {self.in_dim} values, got shape {tuple(features.shape)}")
        scale = 1 / self.feature_std
        return torch.addcmul(-self.feature_mean * scale, features.float(), scale)  # one pass over the features

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """How much each instance moves each logit, (sum N, C); see `inference.contributions`."""
        network = cast(Contributing, self.network)
        return network.contributions(self._standard(features), offsets)

    def set_standardisation(self, mean: Tensor, std: Tensor) -> None:
        """Take the mean and standard deviation (D,) of the training instances; std must be positive."""
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)


def build_model(spec: MilSpec, in_dim: int, n_outputs: int) -> MilModel:
    """A fresh model, weights drawn from torch's current generator. Raises UsageError for an unknown name."""
    return MilModel(MIL_MODELS.get(spec.model)(in_dim, n_outputs, spec), in_dim, n_outputs)


def projection(in_dim: int, spec: MilSpec) -> nn.Module:
    """Instance projection (sum N, D) -> (sum N, hidden_dim)."""
    return nn.Sequential(nn.Linear(in_dim, spec.hidden_dim), nn.ReLU())


def head_contributions(head: nn.Module, weighted: Tensor) -> Tensor:
    """The share of each instance in the logits of a linear head: (sum N, hidden_dim) -> (sum N, C).

    `weighted` are the terms whose sum over a bag is its embedding; with the head's bias the shares add up to the
    logits exactly.
    """
    linear = cast(nn.Sequential, head)[1]
    return functional.linear(weighted, cast(nn.Linear, linear).weight)


def head(n_outputs: int, spec: MilSpec) -> nn.Module:
    """Bag embedding (B, hidden_dim) -> outputs (B, C)."""
    return nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(spec.hidden_dim, n_outputs))
