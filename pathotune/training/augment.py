"""Augmentation of training images: the eight symmetries of the square, and random stain strength."""

from __future__ import annotations

import torch
from torch import Tensor

_STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density of haematoxylin, eosin and DAB in R, G, B (Ruifrok and Johnston 2001); rows of length about 1."""


WAYS = 8
"""The symmetries of the square, numbered: four quarter turns, then the same of the mirror image."""


def turn(images: Tensor, generator: torch.Generator, *, flips: bool, rotations: bool) -> Tensor:
    """Flip and rotate each image (B, C, S, S): a random symmetry of the square, all equally likely."""
    if not flips and not rotations:
        return images
    return turned(images, draw_ways(len(images), generator, flips=flips, rotations=rotations))


def draw_ways(count: int, generator: torch.Generator, *, flips: bool, rotations: bool) -> Tensor:
    """A random symmetry for each of `count` images, int64 (count,); zeros, and nothing drawn, if there are none."""
    if not flips and not rotations:
        return torch.zeros(count, dtype=torch.int64)
    mirrored = torch.randint(2 if flips else 1, (count,), generator=generator)
    quarters = torch.randint(4 if rotations else 1, (count,), generator=generator)
    return 4 * mirrored + quarters


def turned(images: Tensor, ways: Tensor) -> Tensor:
    """Each image (B, C, S, S) in the symmetry that `ways` (B,) numbers."""
    out = torch.empty_like(images)
    for way in range(WAYS):
        rows = torch.nonzero(ways == way).squeeze(1).to(images.device)
        if len(rows):
            part = images[rows].flip(3) if way // 4 else images[rows]
            out[rows] = torch.rot90(part, way % 4, (2, 3))
    return out


def jitter_stains(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale and shift the optical density of each stain in images (B, 3, S, S) with values in 0..255.

    Factors are uniform in 1 +- strength, shifts in +- strength / 10 of full stain density. Source: Tellez et al.
    2018, IEEE Trans Med Imaging 37:2126 (HED jitter).
    """
    if strength <= 0:
        return images
    stains = (_STAINS / _STAINS.norm(dim=1, keepdim=True)).to(images.device)
    scale = 1 + strength * _plus_minus(len(images), generator).to(images.device)
    shift = 0.1 * strength * _plus_minus(len(images), generator).to(images.device)
    density = -torch.log((images + 1.0) / 256.0)
    amounts = torch.einsum("bchw,cs->bshw", density, torch.linalg.inv(stains))
    amounts = amounts * scale[:, :, None, None] + shift[:, :, None, None]
    changed = 256.0 * torch.exp(-torch.einsum("bshw,sc->bchw", amounts, stains)) - 1.0
    return changed.clamp_(0.0, 255.0)


def _plus_minus(count: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand((count, 3), generator=generator) - 1
