"""What training aims at: how far a model's outputs are from the truth of each bag, and how much a bag counts.

An objective answers for bag indices, so that training knows nothing of classes, values or survival times.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from wsi_pipeline.errors import MilError


class Objective(Protocol):
    """The target of a training run."""

    n_outputs: int
    """Width of a model's output, C."""

    def losses(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Loss of each bag (b,), unweighted, from outputs (b, C); `indices` (b,) says which bags they are."""

    def bag_weights(self, train: Tensor) -> Tensor:
        """How much each bag counts (B,), learned from the bags `train` only."""

    def targets(self, indices: Tensor) -> Tensor | None:
        """Class codes int64 (b,) of some bags, for networks with a loss of their own; None where there are none."""


class Classification:
    """Cross-entropy over exclusive classes.

    labels           class of each bag, whole numbers 0 to n_classes - 1, (B,)
    balanced         weigh a class by n / (classes seen in training * its bags in training); unseen classes count 1
    label_smoothing  part of each label that is spread evenly over all classes (Szegedy et al. 2016, sec. 7)

    Raises MilError for labels outside the range.
    """

    def __init__(self, labels: Tensor, n_classes: int, *, balanced: bool, label_smoothing: float = 0.0) -> None:
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < n_classes):
            raise MilError(f"labels must be 0 to {n_classes - 1}, got {int(labels.min())} to {int(labels.max())}")
        self.labels = labels.to(torch.int64)
        self.n_outputs = n_classes
        self.balanced = balanced
        self.label_smoothing = label_smoothing

    def losses(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Cross-entropy of each bag, (b,)."""
        labels = self.labels[indices].to(outputs.device)
        return functional.cross_entropy(outputs, labels, reduction="none", label_smoothing=self.label_smoothing)

    def bag_weights(self, train: Tensor) -> Tensor:
        """The weight of each bag's class, (B,); the training bags' weights have mean 1."""
        if not self.balanced:
            return torch.ones(len(self.labels))
        counts = torch.bincount(self.labels[train], minlength=self.n_outputs).float()
        per_class = len(train) / (counts.count_nonzero() * counts)
        return per_class.where(counts > 0, 1.0)[self.labels]

    def targets(self, indices: Tensor) -> Tensor:
        """The class of each bag, int64 (b,)."""
        return self.labels[indices]


class Regression:
    """Huber loss of one number (Huber 1964): half the squared error up to 1, from there on a straight line.

    values   the standardised target of each bag, (B,): 1 is a standard deviation

    Within a standard deviation this is squared error, so that the model learns the mean; beyond it a slide pulls
    no harder the further off it is. One mistaken value does not carry away a step of a few bags.
    """

    n_outputs = 1

    def __init__(self, values: Tensor) -> None:
        self.values = values.float()

    def losses(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Loss of each bag, (b,), from outputs (b, 1)."""
        return functional.huber_loss(outputs[:, 0], self.values[indices].to(outputs), reduction="none")

    def bag_weights(self, train: Tensor) -> Tensor:
        """Every bag counts 1, (B,)."""
        return torch.ones(len(self.values))

    def targets(self, indices: Tensor) -> None:
        """None: there are no classes."""
