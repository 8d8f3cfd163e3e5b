"""State of one training run: model, random generators, optimiser, loss history."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import BagBatch, Bags
from wsi_pipeline.mil.models.abmil import AttentionPooling
from wsi_pipeline.mil.models.mil_model import Dropout, MilModel
from wsi_pipeline.mil.models.zoo import build_model
from wsi_pipeline.mil.training import batching as pieces
from wsi_pipeline.mil.training.adamw import AdamW
from wsi_pipeline.mil.training.objectives import Objective
from wsi_pipeline.mil.training.seeding import seeded, sub_seed
from wsi_pipeline.mil.training.standardise import Moments
from wsi_pipeline.system.device import choose_precision

log = logging.getLogger(__name__)

RowIndices = NDArray[np.int64]

MIN_GAIN = 1e-3
"""Smallest drop of the validation loss (nats) that resets the patience. The state of lowest loss is always kept."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training bags: weighted mean losses; val_loss is None without validation bags.

    The training loss includes the network's own loss (CLAM's instance loss); the validation loss does not.
    """

    epoch: int
    train_loss: float
    val_loss: float | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model (on the CPU, in eval mode), its epoch (counted from 1), and the losses of all epochs."""

    model: MilModel
    best_epoch: int
    history: tuple[Epoch, ...]


@dataclass(frozen=True, eq=False)
class FoldRows:
    """Inputs of one training run: the training bags, those for early stopping, and the seed."""

    train: RowIndices
    val: RowIndices
    seed: int


class TrainingRun:
    """A training run in progress, with random generators of its own, seeded by `rows.seed`."""

    def __init__(
        self, bags: Bags, objective: Objective, rows: FoldRows, spec: MilSpec, device: torch.device, moments: Moments
    ) -> None:
        """A fresh model on its device. Raises MilError if the training bags hold no instances."""
        if bags.lengths[rows.train].sum() == 0:
            raise MilError("the training bags hold no instances", todo="Embed more slides, or lower --min-coverage.")
        self.bags, self.objective, self.rows, self.spec, self.device = bags, objective, rows, spec, device
        with seeded(sub_seed(rows.seed, 0), device):
            self.model = build_model(spec, bags.dim, objective.n_outputs)
        self.model.set_standardisation(*moments.standardisation(rows.train))
        self.model.to(device)
        self._draw_dropout_from(torch.Generator(device).manual_seed(sub_seed(rows.seed, 2)))
        self.rng = np.random.default_rng(sub_seed(rows.seed, 1))
        self.weights = objective.bag_weights(torch.from_numpy(rows.train))
        self.arithmetic = _arithmetic(self.model, spec, device)
        self.optimizer = AdamW(self.model.parameters(), spec.learning_rate, spec.weight_decay)
        self.history: list[Epoch] = []
        self._lowest, self._best, self._state = math.inf, 0, self.model.state_dict()
        self._gained, self._last_gain = math.inf, 0

    def steps(self) -> Iterator[RowIndices]:
        """The training bags of one epoch in random order, `batch_bags` at a time."""
        order = self.rng.permutation(self.rows.train)
        yield from (order[start : start + self.spec.batch_bags] for start in range(0, len(order), self.spec.batch_bags))

    def pieces(self, step: RowIndices) -> Iterator[BagBatch]:
        """The instances of a step, in batches that fit in memory."""
        return pieces.sampled_pieces(self.bags, step, self.spec.max_instances, self.rng)

    def weight(self, indices: RowIndices) -> float:
        """Sum of the weights of some bags."""
        return float(self.weights[torch.from_numpy(indices)].sum())

    def loss(self, batch: BagBatch) -> Tensor:
        """Sum of the weighted losses of a batch, with the network's own loss."""
        targets = self.objective.targets(batch.indices)
        targets = None if targets is None else targets.to(self.device)
        with torch.autocast(self.device.type, self.arithmetic, enabled=self.arithmetic != torch.float32):
            if self.device.type == "cpu":
                output = self.model.of_parts(batch.parts, batch.offsets, targets)
            else:
                output = self.model(batch.features.to(self.device), batch.offsets, targets)
        return self.loss_of(output.logits, batch.indices, output.auxiliary)

    def loss_of(self, logits: Tensor, indices: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """Sum of the weighted losses of some bags from their logits (b, C)."""
        losses = self.objective.losses(logits.float(), indices)
        if auxiliary is not None:
            losses = losses + auxiliary
        return (losses * self.weights[indices].to(self.device)).sum()

    @torch.no_grad()
    def val_loss(self) -> float | None:
        """Weighted mean loss over the validation bags, in eval mode; None without any."""
        if not len(self.rows.val):
            return None
        self.model.eval()
        total = [self.loss(piece) for piece in pieces.pieces(self.bags, self.rows.val)]
        return sum_of(total) / self.weight(self.rows.val)

    def note(self, train_loss: float, val_loss: float | None) -> Epoch:
        """End an epoch: record its losses, and keep the state if it is the best so far.

        Raises MilError if a loss is not finite.
        """
        epoch = _finite(Epoch(len(self.history) + 1, train_loss, val_loss), self.spec)
        self.history.append(epoch)
        if val_loss is None or val_loss < self._lowest:
            self._lowest, self._best = (math.inf if val_loss is None else val_loss), epoch.epoch
            self._state = copy.deepcopy(self.model.state_dict())
        if val_loss is None or val_loss < self._gained - MIN_GAIN:
            self._gained, self._last_gain = self._lowest, epoch.epoch
        return epoch

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or the patience is used up."""
        done = len(self.history)
        return done >= self.spec.epochs or done - self._last_gain >= self.spec.patience

    def fitted(self) -> Fitted:
        """The best state, on the CPU."""
        log.debug("best epoch %d of %d, validation loss %.4f", self._best, len(self.history), self._lowest)
        self.model.load_state_dict(self._state)
        self._draw_dropout_from(None)
        return Fitted(self.model.cpu().eval(), self._best, tuple(self.history))

    def _draw_dropout_from(self, generator: torch.Generator | None) -> None:
        for module in self.model.modules():
            if isinstance(module, Dropout):
                module.generator = generator


def sum_of(losses: Sequence[Tensor]) -> float:
    """Sum of the losses in float64, in one transfer from the device."""
    return float(torch.stack(list(losses)).cpu().double().sum())


def _arithmetic(model: MilModel, spec: MilSpec, device: torch.device) -> torch.dtype:
    """`auto` on a CPU is bf16 only for models with the fused operation; others compile kernels per bag size."""
    fused = any(isinstance(module, AttentionPooling) for module in model.modules())
    if spec.precision == "auto" and device.type == "cpu" and not fused:
        return torch.float32
    return choose_precision(spec.precision, device).dtype


def _finite(epoch: Epoch, spec: MilSpec) -> Epoch:
    losses = [epoch.train_loss] + ([] if epoch.val_loss is None else [epoch.val_loss])
    if not all(map(math.isfinite, losses)):
        raise MilError(
            f"the loss is no longer a finite number in epoch {epoch.epoch} (learning_rate {spec.learning_rate})",
            todo="Lower --learning-rate.",
        )
    return epoch
