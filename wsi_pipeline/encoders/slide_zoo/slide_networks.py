"""Networks of published slide encoders in plain torch: attention pooling over the patch features of one slide.

All follow gated attention (Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", 2018, eq. 9).
FEATHER pools the projected patches, CHIEF the patch features themselves by the attention over their projections, and
MADELEINE has several heads, each with its own part of the projection, joined by a linear layer.

A slide may have any number of patches: they go through in blocks, and the softmax over all of them is summed as they
come (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018), in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from wsi_pipeline.errors import EncoderError
from wsi_pipeline.registry import Registry


@dataclass(frozen=True, eq=False)
class PatchRows:
    """The patches of one slide.

    blocks         float32 (n, D), some rows at a time, on the device of the network
    coords         int64 (N, 2), level-0 pixels of each row, or None if not known
    patch_level0   side of a patch, level-0 pixels; 0 if not known
    """

    blocks: Iterable[Tensor]
    coords: Tensor | None = None
    patch_level0: int = 0


class SlideNetwork(Protocol):
    """What every network here offers."""

    def embed(self, rows: PatchRows) -> Tensor:
        """The slide embedding, float32 (E,)."""


SLIDE_NETWORKS: Registry[type[nn.Module]] = Registry(
    "slide network", ("GatedPooling", "MultiheadPooling", "LongNet", "Perceiver", "GridTransformer")
)


class _Gate(nn.Module):
    """Scores w^T (tanh(V h) * sigmoid(U h)): (n, hidden_dim) -> (n,)."""

    def __init__(self, hidden_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.v = nn.Linear(hidden_dim, attention_dim)
        self.u = nn.Linear(hidden_dim, attention_dim)
        self.w = nn.Linear(attention_dim, 1)

    def forward(self, h: Tensor) -> Tensor:
        scores: Tensor = self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h)))
        return scores[:, 0]


@SLIDE_NETWORKS.register("GatedPooling")
class GatedPooling(nn.Module):
    """One linear projection with ReLU, then gated attention.

    pools   "hidden": the weighted mean of projections; "features": that of the patch features as they came in
    """

    def __init__(self, in_dim: int, hidden_dim: int, attention_dim: int, pools: str = "hidden") -> None:
        super().__init__()
        self.projection = nn.Linear(in_dim, hidden_dim)
        self.attention = _Gate(hidden_dim, attention_dim)
        self.pools = pools

    def embed(self, rows: PatchRows) -> Tensor:
        """The slide embedding, float32 (hidden_dim,), or (in_dim,) where features are pooled."""
        pool = OnlineSoftmax()
        for block in rows.blocks:
            h = torch.relu(self.projection(block))
            pool.add(self.attention(h)[:, None], (h if self.pools == "hidden" else block)[:, :, None])
        return pool.mean()[:, 0].float()


@SLIDE_NETWORKS.register("MultiheadPooling")
class MultiheadPooling(nn.Module):
    """Three linear layers with layer norm and GELU, gated attention in each head, and a linear layer over all heads.

    Value e of head c is number e * heads + c of the last projection, and of what the linear layer takes.
    """

    def __init__(self, in_dim: int, hidden_dim: int, attention_dim: int, heads: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in ((in_dim, hidden_dim), (hidden_dim, hidden_dim), (hidden_dim, hidden_dim * heads)):
            # The identity stands where training has its dropout, so that the layers have their published numbers.
            layers += [nn.Linear(wide, narrow), nn.LayerNorm(narrow), nn.GELU(), nn.Identity()]
        self.projection = nn.Sequential(*layers)
        self.attention = nn.ModuleList([_Gate(hidden_dim, attention_dim) for _ in range(heads)])
        self.head = nn.Linear(hidden_dim * heads, hidden_dim)

    def embed(self, rows: PatchRows) -> Tensor:
        """The slide embedding, float32 (hidden_dim,)."""
        pool, heads = OnlineSoftmax(), len(self.attention)
        for block in rows.blocks:
            h = self.projection(block).unflatten(1, (-1, heads))
            pool.add(torch.stack([gate(h[:, :, c]) for c, gate in enumerate(self.attention)], 1), h)
        embedding: Tensor = self.head(pool.mean().flatten().float())
        return embedding


class OnlineSoftmax:
    """Weighted mean of rows by the softmax of their scores, as blocks of rows come in. Sums are float64."""

    def __init__(self) -> None:
        self.highest: Tensor | None = None

    def add(self, scores: Tensor, values: Tensor) -> None:
        """Rows with scores (n, C) and values (n, E, C), or (n, E) where all C scores weight the same values."""
        scores, values = scores.double(), values.double()
        highest = scores.amax(0)
        if self.highest is None:
            self.highest, self.total = highest, torch.zeros_like(highest)
            self.weighted = values.new_zeros(values.shape[1], scores.shape[1])
        new = torch.maximum(self.highest, highest)
        weights, kept = (scores - new).exp(), (self.highest - new).exp()
        self.total = self.total * kept + weights.sum(0)
        self.weighted = self.weighted * kept + torch.einsum(
            "nc,nec->ec" if values.ndim == 3 else "nc,ne->ec", weights, values
        )
        self.highest = new

    def mean(self) -> Tensor:
        """The weighted mean, float64 (E, C). Raises EncoderError without rows."""
        if self.highest is None:
            raise EncoderError("a slide without patches has no embedding")
        return self.weighted / self.total


def mean_of(blocks: Iterable[Tensor]) -> Tensor:
    """The mean of all rows, float32 (D,), summed in float64. Raises EncoderError without rows."""
    total, count = None, 0
    for block in blocks:
        part = block.double().sum(0)
        total, count = part if total is None else total + part, count + len(block)
    if total is None or not count:
        raise EncoderError("a slide without patches has no embedding")
    return (total / count).float()


def weighted_sum_of(blocks: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The sum of all rows times their weights, float32 (D,), summed in float64."""
    parts = [weight.double() @ block.double() for block, weight in zip(blocks, weights, strict=True)]
    return torch.stack(parts).sum(0).float()
