"""Resizing with filters that PyTorch lacks on some devices: nearest, box, hamming and lanczos, as in Pillow.

Pillow's filters and the rule for their support: https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

FILTERS = ("nearest", "box", "hamming", "lanczos")
_RADIUS = {"box": 0.5, "hamming": 1.0, "lanczos": 3.0}


def resize_by_weights(images: torch.Tensor, side: int, interpolation: str) -> torch.Tensor:
    """Square images (B, C, P, P) of bytes to floats (B, C, side, side) with whole values from 0 to 255.

    First across, then down, rounded to bytes in between, as Pillow resizes; where a centre falls on the border of two
    pixels, nearest takes the one that PyTorch takes. `interpolation` is one of FILTERS.
    """
    if interpolation == "nearest":
        return torch.nn.functional.interpolate(images.float(), size=(side, side), mode="nearest-exact")
    weights = _weights(images.shape[-1], side, interpolation, images.device)
    across = (images.float() @ weights.T + 0.5).floor_().clamp_(0.0, 255.0)
    return (weights @ across + 0.5).floor_().clamp_(0.0, 255.0)


@lru_cache(maxsize=16)
def _weights(before: int, after: int, interpolation: str, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(filter_weights(before, after, interpolation)).to(device)


def filter_weights(before: int, after: int, interpolation: str) -> NDArray[np.float32]:
    """(after, before): how much each old pixel of a line counts in each new one; every row sums to 1."""
    scale = before / after
    weights = np.zeros((after, before))
    centres = (np.arange(after) + 0.5) * scale
    stretch = max(scale, 1.0)
    support = _RADIUS[interpolation] * stretch
    for row, centre in enumerate(centres):
        first, end = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), before)
        weights[row, first:end] = _height((np.arange(first, end) + 0.5 - centre) / stretch, interpolation)
    shares: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _height(x: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    """The filter's curve at `x`, in old pixels if an image grows, in new ones if it shrinks."""
    if interpolation == "box":
        return ((x > -0.5) & (x <= 0.5)).astype(float)
    if interpolation == "hamming":
        return np.where(np.abs(x) < 1.0, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)
