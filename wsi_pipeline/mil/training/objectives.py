"""Training objectives: the loss of each bag, and its weight.

An objective takes bag indices, so training does not depend on classes, values or survival times.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from wsi_pipeline.errors import MilError


class Objective(Protocol):
    """What a training run minimises."""

    n_outputs: int
    """Width of a model's output, C."""

    def losses(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Loss of each bag (b,), unweighted, from outputs (b, C); `indices` (b,) are the bags."""

    def bag_weights(self, train: Tensor) -> Tensor:
        """Weight of each bag (B,), from the bags `train` only."""

    def targets(self, indices: Tensor) -> Tensor | None:
        """Class codes int64 (b,) of some bags, for networks with a loss of their own; None without classes."""


class Classification:
    """Cross-entropy over exclusive classes.

    labels           class of each bag, whole numbers 0 to n_classes - 1, (B,)
    balanced         weight a class by n / (classes seen in training * its bags in training); unseen classes count 1
    label_smoothing  fraction of each label spread evenly over all classes (Szegedy et al. 2016, sec. 7)

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
        return class_weights(self.labels, self.n_outputs, train) if self.balanced else torch.ones(len(self.labels))

    def targets(self, indices: Tensor) -> Tensor:
        """The class of each bag, int64 (b,)."""
        return self.labels[indices]


class CumulativeLink:
    """Negative log-likelihood of grades 0 to K - 1 whose cumulative logits are c_1 > c_2 > ... > c_{K-1}.

    labels     grade of each bag, whole numbers 0 to n_grades - 1, (B,)
    balanced   weight grades as `Classification` weights classes

    Outputs (b, K - 1) are c_1 and, softplus taken, the distances c_k - c_{k+1}. Then P(grade = k) = s(c_k) - s(c_{k+1})
    = s(c_k) s(-c_{k+1}) s(o_{k+1}), s the logistic function: a product, so its logarithm is exact however small it is.
    """

    def __init__(self, labels: Tensor, n_grades: int, *, balanced: bool) -> None:
        self.labels = labels.to(torch.int64)
        self.n_grades, self.n_outputs = n_grades, n_grades - 1
        self.balanced = balanced

    def losses(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Loss of each bag, (b,)."""
        labels = self.labels[indices].to(outputs.device)
        gaps = functional.softplus(outputs[:, 1:])
        above = torch.cat([outputs[:, :1], outputs[:, :1] - gaps.cumsum(1)], 1)
        nothing = outputs.new_zeros(len(outputs), 1)
        reached = torch.cat([nothing, functional.logsigmoid(above)], 1)
        not_beyond = torch.cat([functional.logsigmoid(-above), nothing], 1)
        apart = torch.cat([nothing, functional.logsigmoid(outputs[:, 1:]), nothing], 1)
        log_likelihood = (reached + not_beyond + apart).gather(1, labels[:, None])
        return -log_likelihood[:, 0]

    def bag_weights(self, train: Tensor) -> Tensor:
        """The weight of each bag's grade, (B,); the training bags' weights have mean 1."""
        return class_weights(self.labels, self.n_grades, train) if self.balanced else torch.ones(len(self.labels))

    def targets(self, indices: Tensor) -> None:
        """None: the outputs are not classes."""


def class_weights(labels: Tensor, n_classes: int, train: Tensor) -> Tensor:
    """n / (classes seen in training * bags of the class in training) of each bag's class, (B,); 1 for unseen ones."""
    counts = torch.bincount(labels[train], minlength=n_classes).float()
    per_class = len(train) / (counts.count_nonzero() * counts)
    return per_class.where(counts > 0, 1.0)[labels]


class Regression:
    """Huber loss of one number (Huber 1964): half the squared error up to 1, from there on a straight line.

    values    the standardised target of each bag, (B,): 1 is a standard deviation
    squared   half the squared error everywhere: ridge regression, with the penalty of a linear model

    Squared error within one standard deviation, so that the model learns the mean; beyond, the gradient is constant, so
    that a single wrong value does not dominate a step of a few bags.
    """

    n_outputs = 1

    def __init__(self, values: Tensor, *, squared: bool = False) -> None:
        self.values = values.float()
        self.squared = squared

    def losses(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Loss of each bag, (b,), from outputs (b, 1)."""
        values = self.values[indices].to(outputs)
        if self.squared:
            return (outputs[:, 0] - values).square() / 2
        return functional.huber_loss(outputs[:, 0], values, reduction="none")

    def bag_weights(self, train: Tensor) -> Tensor:
        """Every bag counts 1, (B,)."""
        return torch.ones(len(self.values))

    def targets(self, indices: Tensor) -> None:
        """None: there are no classes."""
