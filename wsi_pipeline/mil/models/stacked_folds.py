"""Attention models of several folds as one stacked model: on small bags the calls cost more than the arithmetic.

The weights of F models are stacked in arrays (F, ...), the rows of each fold's bags, padded to the longest, in one
array (F, R, D). All operations are plain ones on such arrays, with gradients by autograd. Memory grows with the rows of
a step, so larger bags go through `fused_attention`, block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

import torch
from torch import Tensor

from wsi_pipeline.mil.bags import BagBatch
from wsi_pipeline.mil.models.abmil import AttentionPooling
from wsi_pipeline.mil.models.fused_attention import ROW_STEP, AttentionWeights, tanh
from wsi_pipeline.mil.models.mil_model import MilModel, apply_head
from wsi_pipeline.mil.models.ragged import segment_ids


def stackable(model: MilModel) -> bool:
    """Whether models like this one can be stacked: plain attention pooling."""
    return isinstance(model.network, AttentionPooling)


def stacked_logits(models: Sequence[MilModel], batches: Sequence[BagBatch], arithmetic: torch.dtype) -> list[Tensor]:
    """The logits (b, C) of each model on its own bags; up to rounding equal to those of the model alone.

    models      `stackable`, and equal except for their weights
    arithmetic  type in which matrices are multiplied
    """
    device = models[0].feature_mean.device
    with torch.autocast(device.type, arithmetic, enabled=arithmetic != torch.float32):
        each = [
            model.standard_rows([part.to(device) for part in batch.parts])
            for model, batch in zip(models, batches, strict=True)
        ]
    longest = -(-max(map(len, each)) // ROW_STEP) * ROW_STEP
    features = each[0].new_empty(len(each), longest, models[0].in_dim)
    bags = torch.full((len(each), longest), -1)
    for k, (rows, batch) in enumerate(zip(each, batches, strict=True)):
        rows.write(features[k])
        bags[k, : len(rows)] = segment_ids(batch.offsets)
    networks = [cast(AttentionPooling, model.network) for model in models]
    n_bags = max(len(batch.indices) for batch in batches)
    pooled = stacked_pool(features, bags.to(device), n_bags, _stacked([network.weights() for network in networks]))
    return [
        apply_head(network.head, own[: len(batch.indices)])
        for network, own, batch in zip(networks, pooled.unbind(), batches, strict=True)
    ]


def stacked_pool(features: Tensor, bags: Tensor, n_bags: int, weights: AttentionWeights) -> Tensor:
    """Bag embeddings (F, B, H): `fused_attention.attention_pool` for F models at once.

    features  (F, R, D); matrices are multiplied in their type, the rest is float32 (float64 from float64)
    bags      int64 (F, R): bag of each row within its fold, 0 to B - 1; -1 for padding
    weights   of the F models, stacked along a new first axis
    """
    own = bags[:, None] == torch.arange(n_bags, device=bags.device)[:, None]
    hidden = _linear(features, weights.projection, weights.projection_bias).relu_()
    gates = _linear(hidden, weights.gates, weights.gates_bias)
    wide, gated = weights.score.dtype, gates.shape[2] == 2 * weights.score.shape[1]
    inner = _Gate.apply(gates, wide) if gated else gates.to(wide).tanh()
    scores = torch.bmm(inner, weights.score[:, :, None]).transpose(1, 2)  # a softmax does not see their bias
    attention = torch.where(own, scores, torch.finfo(wide).min).softmax(2) * own
    return torch.bmm(attention.to(hidden.dtype), hidden).to(wide)


class _Gate(torch.autograd.Function):
    """tanh of the first half of the columns times sigmoid of the second; as single operations, half as fast."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, wide: torch.dtype) -> Tensor:
        """(F, R, 2 A) -> (F, R, A) in the type `wide`."""
        first, second = gates.chunk(2, 2)
        t, s = tanh(first, wide), second.to(wide).sigmoid()
        ctx.save_for_backward(t, s)
        ctx.narrow = gates.dtype
        return t * s

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Gradient of the gates, in their type."""
        t, s = ctx.saved_tensors
        both = gradient.new_empty(*gradient.shape[:2], 2 * gradient.shape[2], dtype=ctx.narrow)
        to_t, to_s = both.chunk(2, 2)
        to_t.copy_(torch.ops.aten.tanh_backward(gradient * s, t))
        to_s.copy_(torch.ops.aten.sigmoid_backward(gradient * t, s))
        return both, None


def _stacked(each: Sequence[AttentionWeights]) -> AttentionWeights:
    names = [field.name for field in fields(AttentionWeights)]
    return AttentionWeights(*(torch.stack([getattr(weights, name) for weights in each]) for name in names))


def _linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(F, R, I), (F, O, I) and (F, O) -> (F, R, O) in the type of the rows."""
    return torch.baddbmm(bias.to(rows.dtype)[:, None], rows, weight.to(rows.dtype).transpose(1, 2))
