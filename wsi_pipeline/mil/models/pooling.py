"""Pooling without attention: the mean of all instances, or the largest value of each feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, MilOutput, apply_head, head, head_contributions, projection
from wsi_pipeline.mil.models.ragged import segment_argmax, segment_mean, segment_uniform


@MIL_MODELS.register("mean")
class MeanPooling(nn.Module):
    """Gated ABMIL without its attention: the same projection and classifier, uniform weights. The baseline to beat."""

    def __init__(self, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.projection = projection(in_dim, spec)
        self.head = head(n_outputs, spec)

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1) -> logits (B, C), attention (sum N,), 1 / N for each instance."""
        pooled = segment_mean(self.projection(features), offsets)
        return MilOutput(apply_head(self.head, pooled), segment_uniform(offsets).to(pooled.device))

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Exact: the classifier on each projected instance over the number of instances, (sum N, C)."""
        weights = segment_uniform(offsets).to(features.device)
        return head_contributions(self.head, self.projection(features) * weights[:, None])


@MIL_MODELS.register("max")
class MaxPooling(nn.Module):
    """Bag embedding z_d = max_k h_kd, then a linear classifier (MI-Net: Wang et al., "Revisiting multiple instance
    neural networks", 2018).

    Each value of z comes from one instance (the first of equal ones), which alone receives its gradient. The attention
    of an instance is the fraction of values that come from it. An empty bag has z = 0.
    """

    def __init__(self, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.projection = projection(in_dim, spec)
        self.head = head(n_outputs, spec)

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1) -> logits (B, C), attention (sum N,)."""
        instances = self.projection(features)
        pooled, winners = _largest(instances, offsets)
        ones = torch.ones(winners.numel(), device=features.device)
        share = torch.zeros(len(features), device=features.device).index_add(0, winners.flatten(), ones)
        return MilOutput(apply_head(self.head, pooled), share / instances.shape[1])

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Exact: each value of z is credited to the instance that it comes from, (sum N, C)."""
        instances = self.projection(features)
        _, winners = _largest(instances, offsets)
        kept = torch.zeros_like(instances).scatter(0, winners, 1.0)
        return head_contributions(self.head, instances * kept)


def _largest(instances: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum of each column in each bag (B, H), 0 for an empty bag; and the rows these come from (b, H)."""
    winners = segment_argmax(instances, offsets)
    filled = winners[:, :1] >= 0
    rows = winners[filled[:, 0]]
    pooled = instances.new_zeros(winners.shape).masked_scatter(filled, instances.gather(0, rows))
    return pooled, rows
