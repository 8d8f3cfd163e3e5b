"""CLAM with a single attention branch: Lu et al., "Data-efficient and weakly supervised computational pathology", 2021.

Gated attention pooling, and an instance loss in training: for each class a binary classifier of instances, trained on
the instances with the highest and lowest attention of a bag.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.abmil import AttentionPooling, GatedAttention
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, MilOutput
from wsi_pipeline.mil.models.ragged import segment_ids, segment_mean, segment_rank
from wsi_pipeline.mil.models.standard_rows import StandardRows

TOP = 8
"""Instances taken from each end of a bag's ranking, B in the paper; half of a bag with fewer than 2 B."""

INSTANCE_WEIGHT = 0.3 / 0.7
"""The paper weights the bag loss by 0.7 and the instance loss by 0.3; here the bag loss has weight 1."""


@MIL_MODELS.register("clam-sb")
class ClamSB(nn.Module):
    """Gated ABMIL with the instance-level clustering of CLAM; without class targets, gated ABMIL.

    In a bag of class y, the TOP instances by attention are positive for y and, as classes are exclusive, negative for
    all others; the TOP instances with the lowest attention are negative for y. The loss is the paper's smooth SVM loss
    (tau = 1, margin 1). Bags with fewer than two instances have no instance loss.
    """

    reads_blocks = True

    def __init__(self, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.pooling = AttentionPooling(GatedAttention(spec.hidden_dim, spec.attention_dim), in_dim, n_outputs, spec)
        self.instances = nn.Linear(spec.hidden_dim, 2 * n_outputs)

    def forward(self, features: Tensor | StandardRows, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1), targets (B,) -> logits (B, C), attention (sum N,), auxiliary (B,)."""
        output: MilOutput = self.pooling(features, offsets)
        if not self.training or targets is None:
            return output
        auxiliary = INSTANCE_WEIGHT * self._instance_loss(features, output.attention, offsets, targets)
        return MilOutput(output.logits, output.attention, auxiliary)

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Exact: the classifier on each term a_k h_k, (sum N, C)."""
        return self.pooling.contributions(features, offsets)

    def _instance_loss(
        self, features: Tensor | StandardRows, attention: Tensor, offsets: Tensor, targets: Tensor
    ) -> Tensor:
        """Mean smooth SVM loss over the chosen instances and their classifiers, (B,); 0 without chosen instances."""
        offsets = offsets.to(features.device)
        rank, bag = segment_rank(attention.detach(), offsets), segment_ids(offsets)
        lengths = offsets.diff()
        k = (lengths // 2).clamp(max=TOP)
        top, bottom = rank < k[bag], rank >= (lengths - k)[bag]
        chosen = (top | bottom).nonzero().squeeze(1)
        scores = self.instances(self.pooling.projection(features[chosen])).float()
        scores = scores.unflatten(1, (-1, 2))  # negative and positive score of each class
        own = functional.one_hot(targets[bag[chosen]], scores.shape[1]).bool()
        positive = own & top[chosen, None]
        margin = scores[..., 0] - scores[..., 1]
        losses = functional.softplus(1 + torch.where(positive, margin, -margin))
        asked = own | top[chosen, None]
        counts = torch.zeros(len(lengths), dtype=torch.int64, device=bag.device).index_add(
            0, bag[chosen], torch.ones_like(chosen)
        )
        parts = functional.pad(counts.cumsum(0), (1, 0))
        return segment_mean((losses * asked).sum(1) / asked.sum(1), parts)
