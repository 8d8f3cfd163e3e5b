"""GigaPath's slide encoder in plain torch: a transformer over all patches with dilated attention, LongNet.

Ding et al., "LongNet: Scaling transformers to 1,000,000,000 tokens", 2023; Xu et al., "A whole-slide foundation model
for digital pathology from real-world data", 2024. In float32; the authors run it in half precision.

Each branch of the attention cuts the sequence into segments, and within a segment every r-th token attends to every
r-th token, each head to those of its own offset. Branches are averaged by the sums of their softmax (LongNet, eq. 10).
The last segment is filled up with zeros, which take part in its softmax, as in the published code.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.encoders.slide_zoo.slide_networks import SLIDE_NETWORKS, PatchRows
from wsi_pipeline.errors import EncoderError

GRID = 1000
"""Places along each side of the grid of positions."""
SEGMENTS = (1024, 5792, 32768, 185363, 1048576)
RATIOS = (1, 2, 4, 8, 16)
_NOT_THERE = -1e8
_MOST_SCORES = 1 << 24


@SLIDE_NETWORKS.register("LongNet")
class LongNet(nn.Module):
    """The mean of the patches after `depth` layers, normalised: the feature that TRIDENT takes.

    depth   layers that are built; later ones of the published network are not needed
    """

    def __init__(self, in_dim: int, dim: int, depth: int, heads: int = 16) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Linear(in_dim, dim)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList([_Layer(dim, heads) for _ in range(depth)])})
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def embed(self, rows: PatchRows) -> Tensor:
        """The slide embedding, float32 (dim,). Raises EncoderError without coordinates and size of the patches."""
        if rows.coords is None or not rows.patch_level0:
            raise EncoderError("this slide encoder needs the coordinates and the size of the patches at level 0")
        tokens = torch.cat([self.patch_embed["proj"](block) for block in rows.blocks])
        tokens = tokens + positions(rows.coords, rows.patch_level0, tokens.shape[1]).to(tokens)
        x = torch.cat([self.cls_token[0], tokens])
        for layer in cast(nn.ModuleList, self.encoder["layers"]):
            x = layer(x)
        embedding: Tensor = self.norm(x[1:].double().mean(0).float())
        return embedding


class _Layer(nn.Module):
    """Attention and feed-forward, each after a layer norm and with another one inside (sub-LN)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = _DilatedAttention(dim, heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.ffn = nn.ModuleDict(
            {"fc1": nn.Linear(dim, 4 * dim), "ffn_layernorm": nn.LayerNorm(4 * dim), "fc2": nn.Linear(4 * dim, dim)}
        )
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, dim) after attention and the feed-forward network."""
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        hidden = functional.gelu(self.ffn["fc1"](self.final_layer_norm(x)))
        out: Tensor = x + self.ffn["fc2"](self.ffn["ffn_layernorm"](hidden))
        return out


class _DilatedAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.inner_attn_ln = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, dim): the dilated attentions of all segment lengths, weighted by their softmax denominators."""
        q, k, v = (each(x).unflatten(1, (self.heads, -1)) for each in (self.q_proj, self.k_proj, self.v_proj))
        mixed, total = torch.zeros_like(q), q.new_zeros(q.shape[:2])
        highest = q.new_full(q.shape[:2], _NOT_THERE)
        for segment, ratio in zip(SEGMENTS, RATIOS, strict=True):
            out, lse = dilated_attention(q, k, v, segment, ratio)
            new = torch.maximum(highest, lse)
            kept, weight = (highest - new).exp(), (lse - new).exp()
            total = total * kept + weight
            mixed = mixed * kept[..., None] + out * weight[..., None]
            highest = new
        found: Tensor = self.out_proj(self.inner_attn_ln((mixed / total[..., None]).flatten(1)))
        return found


def dilated_attention(q: Tensor, k: Tensor, v: Tensor, segment: int, ratio: int) -> tuple[Tensor, Tensor]:
    """One branch: q, k, v (N, H, d) -> outputs (N, H, d) and the log of the sum of exponentials (N, H).

    Tokens that a head leaves out have output 0 and a log sum of -1e8. H must be a multiple of `ratio`.
    """
    count, heads, width = q.shape
    segment = min(segment, count)
    n = -(-count // segment)
    length = -(-segment // ratio) * ratio
    parts = [_cut(each, n, segment, length) for each in (q, k, v)]
    out = q.new_zeros(n, length, heads, width)
    lse = q.new_full((n, length, heads), _NOT_THERE)
    group = heads // ratio
    for offset in range(ratio):
        of_it = slice(offset * group, (offset + 1) * group)
        for number in range(n):
            one = [part[number, offset::ratio, of_it].transpose(0, 1) for part in parts]
            found, sums = _attention(*one)
            out[number, offset::ratio, of_it], lse[number, offset::ratio, of_it] = found, sums
    return out.flatten(0, 1)[:count], lse.flatten(0, 1)[:count]


def _cut(x: Tensor, n: int, segment: int, length: int) -> Tensor:
    """(N, H, d) -> (n, length, H, d), filled up with zeros."""
    padded = functional.pad(x, (0, 0, 0, 0, 0, n * segment - len(x))).reshape(n, segment, *x.shape[1:])
    return functional.pad(padded, (0, 0, 0, 0, 0, length - segment))


def _attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention of (h, L, d), a block of queries at a time: outputs (L, h, d), log sums (L, h)."""
    heads, length, width = q.shape
    step = max(1, _MOST_SCORES // (heads * length))
    outs, sums = [], []
    for start in range(0, length, step):
        scores = q[:, start : start + step] @ k.transpose(1, 2) / width**0.5
        sums.append(scores.logsumexp(2))
        outs.append(scores.softmax(2) @ v)
    return torch.cat(outs, 1).transpose(0, 1), torch.cat(sums, 1).transpose(0, 1)


def positions(coords: Tensor, side: int, dim: int) -> Tensor:
    """Sine-cosine embeddings float32 (N, dim) of the places of patches, level-0 pixels (N, 2), on a grid of `side`.

    Raises EncoderError for places that the grid of the published network does not have.
    """
    place = coords.cpu().numpy() // side
    number = place[:, 0] * GRID + place[:, 1]
    if len(number) and not (number.min() >= 0 and number.max() < GRID * GRID):
        raise EncoderError(f"this slide encoder takes slides of at most {GRID} x {GRID} patches, one lies outside")
    return torch.from_numpy(np.concatenate([_waves(number % GRID, dim // 2), _waves(number // GRID, dim // 2)], 1))


def _waves(place: np.ndarray, dim: int) -> np.ndarray:
    angles = place[:, None] / 10000.0 ** (np.arange(dim // 2) / (dim / 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
