"""The interface of slide-level models: ragged bags in, logits and attention out, features standardised first.

The registry holds *networks*: modules called as `network(features, offsets, targets) -> MilOutput` on standardised
float32 features, made by `Network(in_dim, n_outputs, spec)`. `MilModel` adds the standardisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.config import registries
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.models.standard_rows import StandardRows, scaled
from wsi_pipeline.registry import Registry

Network = Callable[[int, int, MilSpec], nn.Module]

MIL_MODELS: Registry[Network] = registries.MIL_MODELS


@dataclass(frozen=True, eq=False)
class MilOutput:
    """What a network returns for some bags.

    logits     (B, C), one row per bag
    attention  (sum N,), one weight per instance, summing to 1 within each bag
    auxiliary  (B,) the network's own loss for each bag, already weighted, to be added to the objective's; only in
               training with targets, and only of networks that have one
    """

    logits: Tensor
    attention: Tensor
    auxiliary: Tensor | None = None


class Contributing(Protocol):
    """What every network offers besides its forward pass."""

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """What each instance contributes to each logit, (sum N, C), from standardised features (sum N, D)."""


class MilModel(nn.Module):
    """A network on features standardised by its training fold.

    Features of any float type (sum N, D) become float32, minus the mean and divided by the standard deviation of the
    training instances. Both are buffers, saved with the weights. Offsets are int64 (B + 1).
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
        return cast(MilOutput, self.network(self.standard(features), offsets, targets))

    def standard(self, features: Tensor) -> Tensor:
        """Standardised features, in the type of the surrounding autocast."""
        self._check_width(features)
        return scaled(features, *self._scaling(), _arithmetic(features.device))

    def of_parts(self, parts: Sequence[Tensor], offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """`forward` from the features (N, D) of each bag, on the CPU: bit by bit the same, without joining them.

        Networks that say so (`reads_blocks`) get their instances block by block; for others they are joined.
        """
        if not getattr(self.network, "reads_blocks", False):
            with torch.autocast("cpu", enabled=False):  # which knows no float16
                features = torch.cat(list(parts))
            return cast(MilOutput, self(features, offsets, targets))
        return cast(MilOutput, self.network(self.standard_rows(parts), offsets, targets))

    def standard_rows(self, parts: Sequence[Tensor]) -> StandardRows:
        """The features (N, D) of some bags, to be standardised block by block, in the type of the autocast.

        Raises MilError for features of another width.
        """
        for part in parts:
            self._check_width(part)
        return StandardRows(parts, *self._scaling(), _arithmetic(self.feature_mean.device))

    def _check_width(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.in_dim:
            raise MilError(f"this model takes features of {self.in_dim} values, got shape {tuple(features.shape)}")

    def _scaling(self) -> tuple[Tensor, Tensor]:
        """What a value is multiplied by, and what is added then, (D,) each."""
        scale = 1 / self.feature_std
        return scale, -self.feature_mean * scale

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """What each instance contributes to each logit, (sum N, C); see `inference.contributions`."""
        network = cast(Contributing, self.network)
        return network.contributions(self.standard(features), offsets)

    def set_standardisation(self, mean: Tensor, std: Tensor) -> None:
        """Take the mean and standard deviation (D,) of the training instances; std must be positive."""
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(std)


def _arithmetic(device: torch.device) -> torch.dtype:
    """The type of a network's features: that of the surrounding autocast, else float32."""
    lowered = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if lowered else torch.float32


def build_model(spec: MilSpec, in_dim: int, n_outputs: int) -> MilModel:
    """A new model, weights drawn from torch's current generator. Raises UsageError for an unknown name."""
    return MilModel(MIL_MODELS.get(spec.model)(in_dim, n_outputs, spec), in_dim, n_outputs)


class Dropout(nn.Module):
    """Dropout with its own random generator if set, so that parallel trainings stay reproducible."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        """In training, values are 0 with probability p and the others divided by 1 - p."""
        if not self.training or self.p == 0:
            return values
        kept = torch.rand(values.shape, generator=self.generator, device=values.device) >= self.p
        return values * kept / (1 - self.p)


def projection(in_dim: int, spec: MilSpec) -> nn.Sequential:
    """Instance projection (sum N, D) -> (sum N, hidden_dim)."""
    return nn.Sequential(nn.Linear(in_dim, spec.hidden_dim), nn.ReLU())


def head_contributions(head: nn.Module, weighted: Tensor) -> Tensor:
    """Contribution of each instance to the logits of a linear head: (sum N, hidden_dim) -> (sum N, C).

    `weighted` are the terms whose sum over a bag is its embedding; their contributions plus the bias of the head sum to
    the logits.
    """
    linear = cast(nn.Sequential, head)[1]
    return functional.linear(weighted, cast(nn.Linear, linear).weight)


def apply_head(head: nn.Module, embeddings: Tensor) -> Tensor:
    """The head on bag embeddings (B, hidden_dim), in float32 whatever the type of the instances: (B, C)."""
    with torch.autocast(embeddings.device.type, enabled=False):
        return cast(Tensor, head(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))))


def head(n_outputs: int, spec: MilSpec) -> nn.Module:
    """Bag embedding (B, hidden_dim) -> outputs (B, C)."""
    return nn.Sequential(Dropout(spec.dropout), nn.Linear(spec.hidden_dim, n_outputs))
