"""Attention-based MIL, plain and with gates.

Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", 2018.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from wsi_pipeline.mil.contract import MIL_MODELS, MilOutput, head, head_contributions, projection
from wsi_pipeline.mil.segments import segment_pool, segment_softmax
from wsi_pipeline.specs import MilSpec


class TanhAttention(nn.Module):
    """Scores of the attention without gates, eq. 8 before its softmax: w^T tanh(V h^T).

    h (sum N, hidden_dim) -> scores (sum N,).
    """

    def __init__(self, hidden_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.v = nn.Linear(hidden_dim, attention_dim)
        self.w = nn.Linear(attention_dim, 1)

    def forward(self, instances: Tensor) -> Tensor:
        """Unnormalised attention of each instance."""
        return cast(Tensor, self.w(self.v(instances).tanh())).squeeze(1)


class GatedAttention(nn.Module):
    """Scores of the gated attention, eq. 9 before its softmax: w^T (tanh(V h^T) * sigmoid(U h^T)).

    h (sum N, hidden_dim) -> scores (sum N,).
    """

    def __init__(self, hidden_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.v = nn.Linear(hidden_dim, attention_dim)
        self.u = nn.Linear(hidden_dim, attention_dim)
        self.w = nn.Linear(attention_dim, 1)

    def forward(self, instances: Tensor) -> Tensor:
        """Unnormalised attention of each instance."""
        return cast(Tensor, self.w(self.v(instances).tanh() * self.u(instances).sigmoid())).squeeze(1)


class AttentionPooling(nn.Module):
    """Bag embedding z = sum_k a_k h_k (eq. 7) with attention a, then a linear classifier.

    An empty bag has z = 0: its logits are the classifier's bias.
    """

    def __init__(self, attention: nn.Module, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.projection = projection(in_dim, spec)
        self.attention = attention
        self.head = head(n_outputs, spec)

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1) -> logits (B, C), attention (sum N,)."""
        instances = self.projection(features)
        attention = segment_softmax(self.attention(instances), offsets)
        return MilOutput(self.head(segment_pool(instances, attention, offsets)), attention)

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Exact: the classifier on each term a_k h_k, (sum N, C)."""
        instances = self.projection(features)
        attention = segment_softmax(self.attention(instances), offsets)
        return head_contributions(self.head, instances * attention[:, None])


@MIL_MODELS.register("abmil")
def abmil(in_dim: int, n_outputs: int, spec: MilSpec) -> AttentionPooling:
    """ABMIL with the attention of eq. 8."""
    return AttentionPooling(TanhAttention(spec.hidden_dim, spec.attention_dim), in_dim, n_outputs, spec)


@MIL_MODELS.register("gated-abmil")
def gated_abmil(in_dim: int, n_outputs: int, spec: MilSpec) -> AttentionPooling:
    """ABMIL with the gated attention of eq. 9."""
    return AttentionPooling(GatedAttention(spec.hidden_dim, spec.attention_dim), in_dim, n_outputs, spec)
