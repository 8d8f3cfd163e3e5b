"""PRISM's slide encoder in plain torch: a Perceiver whose latent vectors attend to all patches of a slide, in turn.

Jaegle et al., "Perceiver: General perception with iterative attention", 2021; Shaikovski et al., "PRISM: A multi-modal
generative foundation model for slide-level histopathology", 2024. The text decoder is not built. In float32; the
authors run it in half precision.

Patches go through in blocks, and the softmax over all of them is summed as they come.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.encoders.slide_zoo.slide_networks import SLIDE_NETWORKS, OnlineSoftmax, PatchRows

_BLOCK = 4096
"""Patches whose attention is computed at a time."""


@SLIDE_NETWORKS.register("Perceiver")
class Perceiver(nn.Module):
    """The first of `latents` vectors after `rounds` of attention to the patches, each with `depth` layers among them.

    The first round has attention of its own, all later ones share theirs; the layers are the same in every round.
    """

    def __init__(self, in_dim: int, dim: int, latents: int, rounds: int, depth: int, heads: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(latents, dim))
        self.first, self.later = _Look(in_dim, dim), _Look(in_dim, dim)
        self.layers = nn.ModuleList([_Layer(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.rounds = rounds

    def embed(self, rows: PatchRows) -> Tensor:
        """The slide embedding, float32 (dim,). Raises EncoderError for a slide without patches."""
        patches = list(rows.blocks)
        x: Tensor = self.latents
        for number in range(self.rounds):
            x = (self.later if number else self.first)(x, patches)
            for layer in self.layers:
                x = layer(x)
        embedding: Tensor = self.norm(x[0])
        return embedding


class _Look(nn.Module):
    """Latent vectors (L, dim) attend to patches with one head, then a feed-forward network. Patches are not normed."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.xattn = nn.ModuleDict(
            {
                "x_norm": nn.LayerNorm(dim),
                "to_q": nn.Linear(dim, dim, bias=False),
                "to_kv": nn.Linear(in_dim, 2 * dim, bias=False),
                "to_out": nn.Linear(dim, dim, bias=False),
            }
        )
        self.ff = _FeedForward(dim)

    def forward(self, x: Tensor, patches: list[Tensor]) -> Tensor:
        query = self.xattn["to_q"](self.xattn["x_norm"](x)) / x.shape[1] ** 0.5
        pool = OnlineSoftmax()
        for block in (part for each in patches for part in torch.split(each, _BLOCK)):
            keys, values = self.xattn["to_kv"](block).chunk(2, dim=1)
            pool.add(keys @ query.T, values)
        x = x + self.xattn["to_out"](pool.mean().T.to(x))
        out: Tensor = x + self.ff(x)
        return out


class _Layer(nn.Module):
    """Self-attention and a feed-forward network, each after a layer norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.mhsa = nn.ModuleDict(
            {"norm": nn.LayerNorm(dim), "mha": nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)}
        )
        self.ff = _FeedForward(dim)

    def forward(self, x: Tensor) -> Tensor:
        z = self.mhsa["norm"](x)[None]
        x = x + self.mhsa["mha"](z, z, z, need_weights=False)[0][0]
        out: Tensor = x + self.ff(x)
        return out


class _FeedForward(nn.Module):
    """Layer norm, then a gated layer (x * GELU(gate)) and a linear one, all of the same width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        # The identity stands where the activation is, so that the layers have their published numbers.
        self.net = nn.Sequential(nn.Linear(dim, 2 * dim), nn.Identity(), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.net[0](self.norm(x)).chunk(2, dim=1)
        out: Tensor = self.net[2](value * functional.gelu(gate))
        return out
