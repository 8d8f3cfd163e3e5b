"""Attention-based MIL, plain and gated.

Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", 2018.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.fused_attention import AttentionWeights, attention_pool
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, MilOutput, apply_head, head, head_contributions, projection
from wsi_pipeline.mil.models.standard_rows import StandardRows


class TanhAttention(nn.Module):
    """Scores of the ungated attention, eq. 8 before its softmax: w^T tanh(V h^T).

    h (sum N, hidden_dim) -> scores (sum N,). Parameters only, used by `fused_attention.attention_pool`.
    """

    def __init__(self, hidden_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.v = nn.Linear(hidden_dim, attention_dim)
        self.w = _zero_scores(attention_dim)

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """V (A, H) and its bias, w (A,) and its bias."""
        return self.v.weight, self.v.bias, self.w.weight[0], self.w.bias


class GatedAttention(nn.Module):
    """Scores of the gated attention, eq. 9 before its softmax: w^T (tanh(V h^T) * sigmoid(U h^T)).

    h (sum N, hidden_dim) -> scores (sum N,). Parameters only, used by `fused_attention.attention_pool`.
    """

    def __init__(self, hidden_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.v = nn.Linear(hidden_dim, attention_dim)
        self.u = nn.Linear(hidden_dim, attention_dim)
        self.w = _zero_scores(attention_dim)

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """V stacked on U (2 A, H) and their biases, w (A,) and its bias."""
        gates = torch.cat([self.v.weight, self.u.weight])
        return gates, torch.cat([self.v.bias, self.u.bias]), self.w.weight[0], self.w.bias


def _zero_scores(attention_dim: int) -> nn.Linear:
    """The last layer of the attention, initialised to zero: before training all instances have equal weight.

    On small cohorts training does not undo the arbitrary preferences of a random start (benchmarks/mil_benchmarks.py).
    """
    last = nn.Linear(attention_dim, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return last


class AttentionPooling(nn.Module):
    """Bag embedding z = sum_k a_k h_k (eq. 7) with attention a, then a linear classifier.

    An empty bag has z = 0: its logits are the classifier's bias.
    """

    reads_blocks = True

    def __init__(self, attention: TanhAttention | GatedAttention, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.projection = projection(in_dim, spec)
        self.attention = attention
        self.head = head(n_outputs, spec)

    def forward(self, features: Tensor | StandardRows, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1) -> logits (B, C), attention (sum N,)."""
        pooled, attention = attention_pool(features, offsets, self.weights())
        return MilOutput(apply_head(self.head, pooled), attention)

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Exact: the classifier on each term a_k h_k, (sum N, C)."""
        _, attention = attention_pool(features, offsets, self.weights())
        return head_contributions(self.head, self.projection(features) * attention[:, None])

    def weights(self) -> AttentionWeights:
        """The parameters of `fused_attention.attention_pool`."""
        first = cast(nn.Linear, self.projection[0])
        return AttentionWeights(first.weight, first.bias, *self.attention.weights())


@MIL_MODELS.register("abmil")
def abmil(in_dim: int, n_outputs: int, spec: MilSpec) -> AttentionPooling:
    """ABMIL with the attention of eq. 8."""
    return AttentionPooling(TanhAttention(spec.hidden_dim, spec.attention_dim), in_dim, n_outputs, spec)


@MIL_MODELS.register("gated-abmil")
def gated_abmil(in_dim: int, n_outputs: int, spec: MilSpec) -> AttentionPooling:
    """ABMIL with the gated attention of eq. 9."""
    return AttentionPooling(GatedAttention(spec.hidden_dim, spec.attention_dim), in_dim, n_outputs, spec)
