"""MUSK's image branch in plain PyTorch: the image experts of BEiT-3, with layer norms inside (sub-LN).

Sources: Wang et al., "Image as a foreign language: BEiT pretraining for all vision and vision-language tasks", 2022;
https://github.com/microsoft/torchscale; MUSK, https://github.com/lilab-stanford/MUSK. A BEiT-3 layer keeps two sets of
weights, `A` for images and `B` for text; only `A` is built.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from wsi_pipeline.encoders.zoo.layouts import LAYOUTS

_FIRST = 2
"""Row of the position table that the class token takes: torchscale leaves two free, as fairseq does."""
_ENLARGED = 2
"""MUSK's second scale: the image twice as large, seen in as many parts along each side."""


class Beit3Layer(nn.Module):
    """Attention and feed-forward, each after a layer norm and with another one before its last projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = nn.ModuleDict(
            {
                "fc1": nn.Linear(width, 4 * width),
                "ffn_layernorm": nn.LayerNorm(4 * width),
                "fc2": nn.Linear(4 * width, width),
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, N, width)."""
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        hidden = functional.gelu(self.ffn["fc1"](self.final_layer_norm(x)))
        return torch.as_tensor(x + self.ffn["fc2"](self.ffn["ffn_layernorm"](hidden)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.inner_attn_ln = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [
            each(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (self.q_proj, self.k_proj, self.v_proj)
        ]
        mixed = functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        return torch.as_tensor(self.out_proj(self.inner_attn_ln(mixed)))


class Musk(nn.Module):
    """MUSK's normalised class token; with `multiscale` also the mean of those of the four parts at twice the size."""

    def __init__(self, image_px: int, patch_px: int, width: int, depth: int, heads: int, multiscale: bool) -> None:
        super().__init__()
        count = (image_px // patch_px) ** 2
        self.vision_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_px, stride=patch_px)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(_FIRST + 1 + count, width))
        self.layers = nn.ModuleList([Beit3Layer(width, heads) for _ in range(depth)])
        self.layer_norm = nn.LayerNorm(width)
        self.image_px, self.multiscale = image_px, multiscale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, width) of images (B, 3, S, S), or (B, 2 * width) with `multiscale`."""
        whole = self._class_token(images)
        if not self.multiscale:
            return whole
        large = functional.interpolate(images, size=_ENLARGED * self.image_px, mode="bicubic")
        many, side = len(images), large.shape[-1] // _ENLARGED
        parts = large.reshape(many, -1, _ENLARGED, side, _ENLARGED, side).permute(0, 2, 4, 1, 3, 5)
        of_parts = self._class_token(parts.flatten(0, 2))
        of_parts = of_parts.reshape(many, -1, of_parts.shape[-1])
        return torch.cat([whole, of_parts.mean(1)], dim=1)

    def _class_token(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.vision_embed["proj"](images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.positions[_FIRST:]
        for layer in self.layers:
            x = layer(x)
        return torch.as_tensor(self.layer_norm(x[:, 0]))


@LAYOUTS.register("musk")
def musk(image_px: int, patch_px: int, width: int, depth: int, heads: int, multiscale: bool = False) -> Musk:
    """MUSK's image branch (with_head=False, out_norm=False); `multiscale` is its ms_aug."""
    return Musk(image_px, patch_px, width, depth, heads, multiscale)
