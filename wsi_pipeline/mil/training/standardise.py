"""Mean and standard deviation of the training instances, by which all features are standardised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.mil.bags import Bags

_ROWS = 1024
_MIN_STD = 1e-6


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and sum of squared deviations of the instances of each bag, float64 (b, D).

    Features are read once for all folds; each fold combines the moments of its own training bags.
    """

    position: dict[int, int]
    counts: Tensor
    means: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, bags: Bags, indices: NDArray[np.int64]) -> Moments:
        """Read the bags at `indices`, once."""
        means = torch.zeros(len(indices), bags.dim, dtype=torch.float64)
        deviations = torch.zeros_like(means)
        for place, batch in enumerate(bags.batches(indices, 1)):
            parts = [_of_block(block) for block in torch.split(batch.features, _ROWS)]
            means[place], deviations[place] = _joined(*(torch.stack(part) for part in zip(*parts, strict=True)))
        position = {index: place for place, index in enumerate(indices.tolist())}
        return cls(position, torch.from_numpy(bags.lengths[indices]).double(), means, deviations)

    def standardisation(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (D,) float32 over all instances of some of the bags.

        A feature that is constant there gets a standard deviation of 1. No instances: mean 0, standard deviation 1.
        """
        places = torch.tensor([self.position[index] for index in indices.tolist()], dtype=torch.int64)
        counts = self.counts[places]
        if counts.sum() == 0:
            return torch.zeros(self.means.shape[1]), torch.ones(self.means.shape[1])
        mean, deviations = _joined(counts[:, None], self.means[places], self.deviations[places])
        std = (deviations / counts.sum()).sqrt()
        return mean.float(), std.where(std > _MIN_STD, 1.0).float()


def _of_block(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count (1,), mean and sum of squared deviations (D,) of a few rows, in float64."""
    rows = rows.float().cpu()
    mean = rows.mean(0) if len(rows) else rows.sum(0)
    rest = rows - mean
    left = rest.sum(0).double()  # rounding error of the mean
    count = torch.tensor([float(len(rows))], dtype=torch.float64)
    share = left / count.clamp(min=1)
    return count, mean.double() + share, rest.square().sum(0).double() - share * left


def _joined(counts: Tensor, means: Tensor, deviations: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sum of squared deviations (D,) of several sets of rows together (Chan, Golub, LeVeque, 1979)."""
    mean = (counts * means).sum(0) / counts.sum().clamp(min=1)
    return mean, deviations.sum(0) + (counts * (means - mean).square()).sum(0)
