"""A vision transformer with rotary positions, as DINOv3 has them, that sees one colour channel at a time.

Sources: Siméoni et al., "DINOv3", 2025; GenBio-PathFM, https://github.com/genbio-ai/genbio-pathfm. Module names are
those of the published tensors.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from wsi_pipeline.encoders.zoo.layouts import LAYOUTS

_BASE = 100.0
_EPS = 1e-6


class ColourChannels(nn.Module):
    """The normalised class token of each of the channels red, green and blue, one after the other."""

    def __init__(
        self, image_px: int, patch_px: int, width: int, depth: int, heads: int, hidden: int, registers: int
    ) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, patch_px, stride=patch_px)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.storage_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.rope_embed = _Rotary(width // heads, image_px // patch_px)
        self.blocks = nn.ModuleList([_Block(width, heads, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, 3 * width) of images (B, 3, S, S)."""
        patches = self.patch_embed["proj"](images.flatten(0, 1)[:, None]).flatten(2).transpose(1, 2)
        first = torch.cat([self.cls_token, self.storage_tokens], dim=1).expand(len(patches), -1, -1)
        x, turns = torch.cat([first, patches], dim=1), self.rope_embed()
        for block in self.blocks:
            x = block(x, turns)
        found: torch.Tensor = self.norm(x[:, 0])
        return found.reshape(len(images), -1)


class _Rotary(nn.Module):
    """Sine and cosine by which queries and keys are turned, (grid * grid, head width) each; bfloat16, as published."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("periods", _BASE ** (2 * torch.arange(width // 4) / (width // 2)))

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        periods = cast(torch.Tensor, self.periods).bfloat16()
        side = torch.arange(0.5, self.grid, device=periods.device, dtype=periods.dtype) / self.grid
        places = 2 * torch.cartesian_prod(side, side) - 1
        angles = (2 * math.pi * places[:, :, None] / periods).flatten(1).tile(2)
        return angles.sin(), angles.cos()


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attn = _Attention(width, heads)
        self.ls1, self.ls2 = _Scale(width), _Scale(width)
        self.mlp = nn.ModuleDict(
            {"w1": nn.Linear(width, hidden), "w2": nn.Linear(width, hidden), "w3": nn.Linear(hidden, width)}
        )

    def forward(self, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Tokens (B, N, width); `turns` are for the last of them, the patches."""
        x = x + self.ls1(self.attn(self.norm1(x), turns))
        z = self.norm2(x)
        return torch.as_tensor(x + self.ls2(self.mlp["w3"](functional.silu(self.mlp["w1"](z)) * self.mlp["w2"](z))))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        query, keys, values = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(_turned(query, turns), _turned(keys, turns), values)
        return torch.as_tensor(self.proj(mixed.transpose(1, 2).flatten(2)))


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


def _turned(x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """x (B, H, N, d) with the patches, its last tokens, turned; all are rounded to bfloat16, as published."""
    sine, cosine = turns
    rounded = x.to(sine.dtype)
    first, last = rounded[:, :, : -len(sine)], rounded[:, :, -len(sine) :]
    low, high = last.chunk(2, dim=-1)
    return torch.cat([first, last * cosine + torch.cat([-high, low], dim=-1) * sine], dim=2).to(x.dtype)


@LAYOUTS.register("colour_channels")
def colour_channels(
    image_px: int, patch_px: int, width: int, depth: int, heads: int, hidden: int, registers: int
) -> ColourChannels:
    """GenBio-PathFM."""
    return ColourChannels(image_px, patch_px, width, depth, heads, hidden, registers)
