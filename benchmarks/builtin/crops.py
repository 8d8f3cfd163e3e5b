"""Random crops of the corpus: place, scale, turn, flip and stain drawn anew each time."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Pixels = NDArray[np.uint8]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST = 64
"""Pixels of the smallest crop, which is enlarged: nuclei are classified from crops of this kind."""
HUE, STRENGTH = 0.06, 0.22
"""Deviation of the mixing of channels, and of the log of the stain's strength, in optical density."""


def draw_crops(squares: Pixels, rows: NDArray[np.int64], side: int, rng: np.random.Generator) -> Tensor:
    """One crop of each row, normalised, float32 (B, 3, side, side); crops are 64 px to the whole, log-uniform."""
    crops = np.stack([_crop(squares[row], side, rng) for row in rows])
    return normalise(jitter_stain(crops, rng))


def centre_crops(squares: Pixels, rows: NDArray[np.int64], side: int, scale: int = 1) -> Tensor:
    """The middle of each row, `scale` times shrunk: the same for every call. float32 (B, 3, side, side)."""
    start = (squares.shape[1] - side * scale) // 2
    stop = start + side * scale
    crops = [Image.fromarray(np.asarray(squares[row, start:stop, start:stop])).reduce(scale) for row in rows]
    return normalise(torch.from_numpy(np.stack([np.asarray(crop) for crop in crops])).permute(0, 3, 1, 2).float())


def _crop(square: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    whole = square.shape[0]
    part = math.exp(rng.uniform(math.log(SMALLEST), math.log(whole)))
    left, top = rng.uniform(0, whole - part, 2)
    box = (left, top, left + part, top + part)
    # Only what the crop needs is taken from disk.
    rows, columns = slice(int(top), math.ceil(box[3])), slice(int(left), math.ceil(box[2]))
    region = Image.fromarray(np.ascontiguousarray(square[rows, columns]))
    local = (box[0] - columns.start, box[1] - rows.start, box[2] - columns.start, box[3] - rows.start)
    picture = np.asarray(region.resize((side, side), Image.Resampling.BICUBIC, box=local))
    picture = np.rot90(picture, int(rng.integers(4)))
    return picture[:, ::-1] if rng.random() < 0.5 else picture


def jitter_stain(crops: Pixels, rng: np.random.Generator) -> Tensor:
    """Mix and scale the optical densities of each crop at random; float32 (B, 3, h, w), 0 to 255."""
    count = len(crops)
    mixing = np.eye(3) + rng.normal(0, HUE, (count, 3, 3))
    mixing *= np.exp(rng.normal(0, STRENGTH, (count, 1, 1)))
    density = _DENSITY[torch.from_numpy(np.ascontiguousarray(crops)).int()]
    flat = density.reshape(count, -1, 3) @ torch.from_numpy(mixing.astype(np.float32)).transpose(1, 2)
    light = torch.exp(-flat).mul_(256).sub_(1).clamp_(0, 255)
    return light.reshape(*crops.shape).permute(0, 3, 1, 2)


def normalise(images: Tensor) -> Tensor:
    """From 0 to 255 to what DeiT was trained on."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return (images - mean) / std


_DENSITY = -torch.log((torch.arange(256) + 1.0) / 256)
