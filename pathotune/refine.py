"""The Visual Refine Module: a small convolutional network that makes a few tokens out of one image.

The authors' module is not public. Chosen here: depthwise-separable convolutions, because they reach an image's
texture with few parameters, and one attention map per token, so that tokens may look at different places.
Source of the idea: Lu et al. 2024, arXiv 2403.16497 (2 tokens per image from a "Visual Refine Module").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VisualRefineModule(nn.Module):
    """Images (B, 3, H, W), normalised, or patch embeddings (B, D, h, w) -> tokens (B, n, D).

    `source` is `pixels` or `patches`. No layer mixes images or keeps running statistics: the tokens of an image do
    not depend on its batch. `scale` is the standard deviation that tokens have at initialisation.
    """

    def __init__(self, source: str, tokens: int, dim: int, width: int, scale: float) -> None:
        super().__init__()
        self.trunk = _pixel_trunk(width) if source == "pixels" else _patch_trunk(dim, width)
        self.look = nn.Conv2d(width, tokens, 1)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, dim)
        nn.init.normal_(self.out.weight, std=scale / width**0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, n, D)."""
        maps = self.trunk(images).flatten(2)
        weights = self.look_weights(maps)
        pooled = torch.einsum("bnp,bcp->bnc", weights, maps)
        tokens: Tensor = self.out(self.norm(pooled))
        return tokens

    def look_weights(self, maps: Tensor) -> Tensor:
        """Where each token looks: (B, width, P) -> (B, n, P), each row summing to 1."""
        scores: Tensor = self.look(maps.unsqueeze(-1)).squeeze(-1)
        return scores.softmax(dim=-1)


def _pixel_trunk(width: int) -> nn.Sequential:
    """A sixteenth of the resolution. The stem is not normalised: a stain's absolute strength must get through."""
    quarter, half = width // 4, width // 2
    return nn.Sequential(
        nn.Conv2d(3, quarter, 3, stride=2, padding=1),
        nn.GELU(),
        *_separable(quarter, half, stride=2),
        *_separable(half, width, stride=2),
        *_separable(width, width, stride=2),
    )


def _patch_trunk(dim: int, width: int) -> nn.Sequential:
    """The resolution of the patch grid."""
    return nn.Sequential(
        nn.Conv2d(dim, width, 1), nn.GELU(), *_separable(width, width, stride=1), *_separable(width, width, stride=1)
    )


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1),
        nn.GroupNorm(1, outputs),
        nn.GELU(),
    ]
