"""Mean and standard deviation of the instances that train: learned there, applied everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.mil.bags import Bags

_ROWS = 16_384
_MIN_STD = 1e-6


def standardisation(bags: Bags, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) float32 over all instances of some bags, summed in float64, in two passes.

    A value that is constant there gets a standard deviation of 1. No instances: mean 0, standard deviation 1.
    """
    count = int(bags.lengths[indices].sum())
    if count == 0:
        return torch.zeros(bags.dim), torch.ones(bags.dim)
    zero = torch.zeros(bags.dim, dtype=torch.float64)
    mean = sum((rows.sum(0) for rows in _rows(bags, indices)), zero) / count
    variance = sum(((rows - mean).square().sum(0) for rows in _rows(bags, indices)), zero) / count
    std = variance.sqrt()
    return mean.float(), std.where(std > _MIN_STD, 1.0).float()


def _rows(bags: Bags, indices: NDArray[np.int64]) -> Iterator[Tensor]:
    """The instances in float64 blocks of bounded size."""
    for batch in bags.batches(indices, 1):
        for block in torch.split(batch.features, _ROWS):
            yield block.cpu().double()
