"""TITAN's slide encoder in plain torch: a vision transformer over the grid of patches, with biases for distance.

Ding et al., "A multimodal whole-slide foundation model for pathology", 2025; the bias is ALiBi (Press et al., "Train
short, test long", 2022) in two dimensions. The text encoder is not built. In float32; the authors run it in half
precision.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.encoders.slide_zoo.slide_networks import SLIDE_NETWORKS, PatchRows
from wsi_pipeline.errors import EncoderError

_POOL_HEADS = 8
_MOST_SCORES = 1 << 26
"""Attention scores that are in memory at a time; queries go through in blocks."""


@SLIDE_NETWORKS.register("GridTransformer")
class GridTransformer(nn.Module):
    """One query's attention to all tokens after `depth` layers: the slide embedding before its projection for text."""

    def __init__(self, in_dim: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch_embed = nn.Sequential(nn.Linear(in_dim, dim), nn.GELU())
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList([_Block(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn_pool_contrastive = _Pool(dim)

    def embed(self, rows: PatchRows) -> Tensor:
        """The slide embedding, float32 (dim,). Raises EncoderError without coordinates and size of the patches."""
        if rows.coords is None or not rows.patch_level0:
            raise EncoderError("this slide encoder needs the coordinates and the size of the patches at level 0")
        features = torch.cat(list(rows.blocks))
        cells, features = on_grid(rows.coords.to(features.device), rows.patch_level0, features)
        x = torch.cat([self.cls_token[0], self.patch_embed(features)])
        for block in self.blocks:
            x = block(x, cells)
        embedding: Tensor = self.attn_pool_contrastive(self.norm(x))
        return embedding


def on_grid(coords: Tensor, side: int, features: Tensor) -> tuple[Tensor, Tensor]:
    """Cells (M, 2) of a grid of `side` level-0 pixels, and the sum of the features (M, D) of the patches in each.

    Cells are counted from the patch that is farthest left and highest. Those whose features are all 0 are left out, as
    the published code takes them for background. Raises EncoderError if none remains.
    """
    places = torch.div(coords - coords.min(0).values, side, rounding_mode="floor")
    cells, number = torch.unique(places, dim=0, return_inverse=True)
    summed = features.new_zeros(len(cells), features.shape[1]).index_add_(0, number, features)
    there = (summed != 0).any(1)
    if not bool(there.any()):
        raise EncoderError("all features of this slide are 0")
    return cells[there].float(), summed[there]


def slopes(heads: int) -> list[float]:
    """ALiBi's slope of each head: powers of 2 in equal steps; between them those of twice as many heads."""
    whole = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (head + 1) / whole) for head in range(whole)]
    return first + [2 ** (-8 * (head + 0.5) / whole) for head in range(heads - whole)]


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor, cells: Tensor) -> Tensor:
        """Tokens (1 + M, dim) after attention and the feed-forward network."""
        x = x + self.attn(self.norm1(x), cells)
        out: Tensor = x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))
        return out


class _Attention(nn.Module):
    """Scores are lowered by slope * distance between two cells; the class token is at no distance from any."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.heads = heads

    def forward(self, x: Tensor, cells: Tensor) -> Tensor:
        query, keys, values = self.qkv(x).unflatten(1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        slope = query.new_tensor(slopes(self.heads))[:, None, None]
        step = max(1, _MOST_SCORES // (self.heads * len(x)))
        mixed = []
        for start in range(0, len(x), step):
            bias = -slope * _distances(cells, start, min(start + step, len(x)))
            part = query[:, start : start + step]
            mixed.append(functional.scaled_dot_product_attention(part, keys, values, attn_mask=bias))
        out: Tensor = self.proj(torch.cat(mixed, 1).transpose(0, 1).flatten(1))
        return out


def _distances(cells: Tensor, start: int, stop: int) -> Tensor:
    """Distances (stop - start, 1 + M) of tokens from all tokens, in cells; token 0 is the class token."""
    found = cells.new_zeros(stop - start, 1 + len(cells))
    first = max(start, 1)
    found[first - start :, 1:] = torch.cdist(
        cells[first - 1 : stop - 1], cells, compute_mode="donot_use_mm_for_euclid_dist"
    )
    return found


class _Pool(nn.Module):
    """One query attends to all tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.attn = nn.MultiheadAttention(dim, _POOL_HEADS)
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(dim,) of tokens (N, dim)."""
        keys = self.ln_k(tokens)
        out: Tensor = self.attn(self.ln_q(self.query), keys, keys, need_weights=False)[0]
        return out[0]
