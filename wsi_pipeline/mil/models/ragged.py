"""Softmax, sum, mean and weighted sum over the segments of a ragged tensor.

`offsets` is int64 (B + 1): segment i is rows offsets[i] to offsets[i + 1]. Half precision is computed in float32.
Segments are independent: the values of one, NaN included, do not affect another, and results are bit-identical whatever
other segments there are. One operation per segment sums pairwise or in blocks, which is accurate for large bags,
deterministic on every device and, at the size of bags, faster than scattered adds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def segment_softmax(scores: Tensor, offsets: Tensor) -> Tensor:
    """Softmax over the rows of each segment: (sum N,) or (sum N, H) -> the same shape; each column sums to 1."""
    return _Softmax.apply(_wide(scores), offsets) if len(scores) else _wide(scores)


class _Softmax(torch.autograd.Function):
    """All segments in a handful of operations, sums in float64: a bag may have 200,000 rows."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, offsets: Tensor) -> Tensor:
        """Softmax within each segment, in the shape of the scores."""
        lengths = offsets.diff().to(scores.device)
        bags = segment_ids(offsets).to(scores.device)
        weights = (scores - _reduced(scores, "max", lengths)[bags]).exp_()
        weights /= _reduced(weights, "sum", lengths)[bags]
        ctx.save_for_backward(weights, lengths, bags)
        return weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Gradient of the scores; none of the offsets."""
        weights, lengths, bags = ctx.saved_tensors
        inner = weights * gradient
        return inner - weights * _reduced(inner, "sum", lengths)[bags], None


def _reduced(values: Tensor, how: str, lengths: Tensor) -> Tensor:
    """Sum (in float64) or maximum of each segment, in the type of the values."""
    wide = values.double() if how == "sum" and values.device.type != "mps" else values
    return torch.segment_reduce(wide, how, lengths=lengths, axis=0).to(values.dtype)


def segment_sum(values: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the rows of each segment: (sum N, ...) -> (B, ...); an empty segment gives 0."""
    parts = [part.sum(0) for part in _segments(values, offsets)]
    return torch.stack(parts) if parts else _wide(values).new_zeros(0, *values.shape[1:])


def segment_mean(values: Tensor, offsets: Tensor) -> Tensor:
    """Mean of the rows of each segment: (sum N, ...) -> (B, ...); an empty segment gives 0."""
    total = segment_sum(values, offsets)
    lengths = offsets.diff().clamp(min=1).to(total)
    return total / lengths.reshape(-1, *[1] * (total.ndim - 1))


def segment_pool(values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Sum of the rows of each segment times their weights: (sum N, D) and (sum N,) -> (B, D); empty gives 0."""
    pairs = zip(_segments(values, offsets), _segments(weights, offsets), strict=True)
    parts = [weight @ value for value, weight in pairs]
    return torch.stack(parts) if parts else _wide(values).new_zeros(0, values.shape[1])


def segment_uniform(offsets: Tensor) -> Tensor:
    """Equal weights that sum to 1 in each segment: float32 (sum N,)."""
    lengths = offsets.diff()
    return torch.repeat_interleave(1.0 / lengths.clamp(min=1).float(), lengths)


def segment_ids(offsets: Tensor) -> Tensor:
    """The segment of each row, int64 (sum N,), on the device of the offsets."""
    lengths = offsets.diff()
    return torch.repeat_interleave(torch.arange(len(lengths), device=offsets.device), lengths)


def segment_argmax(values: Tensor, offsets: Tensor) -> Tensor:
    """Row of the maximum of each column in each segment, the first of equal ones: (sum N, C) -> int64 (B, C).

    An empty segment gives -1.
    """
    parts = [part.argmax(0) for part in _segments(values.detach(), offsets) if len(part)]
    filled = (offsets.diff() > 0).to(values.device)
    rows = torch.full((len(filled), values.shape[1]), -1, device=values.device)
    if parts:
        rows[filled] = torch.stack(parts) + offsets[:-1].to(values.device)[filled, None]
    return rows


def segment_rank(scores: Tensor, offsets: Tensor) -> Tensor:
    """Rank of each score in its segment, 0 for the highest, equal scores in order: (sum N,) -> int64."""
    by_score = scores.argsort(descending=True, stable=True)
    bags = segment_ids(offsets.to(scores.device))
    order = by_score[bags[by_score].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - offsets.to(order.device)[bags]
    return rank


def _segments(values: Tensor, offsets: Tensor) -> tuple[Tensor, ...]:
    lengths = offsets.diff().tolist()
    return torch.split(_wide(values), lengths) if lengths else ()


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
