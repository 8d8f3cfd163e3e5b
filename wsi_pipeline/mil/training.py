"""Training of one fold: seeded, stopped by the validation bags alone, the best state kept.

The test fold does not enter: `fit` is given the bags that train and those that choose when to stop, and reads
no others.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import BagBatch, Bags
from wsi_pipeline.mil.contract import MilModel
from wsi_pipeline.mil.models import build_model
from wsi_pipeline.mil.objectives import Objective
from wsi_pipeline.mil.pieces import pieces
from wsi_pipeline.mil.seeding import seeded, sub_seed
from wsi_pipeline.mil.standardise import standardisation
from wsi_pipeline.specs import MilSpec

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]


MIN_GAIN = 1e-3
"""A validation loss (nats) that falls by less does not renew the patience; the lowest is kept all the same."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training bags: weighted mean losses; no val_loss where there are no validation bags."""

    epoch: int
    train_loss: float
    val_loss: float | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model (on the CPU, in eval mode), the epoch it is from (counted from 1), and the way there."""

    model: MilModel
    best_epoch: int
    history: tuple[Epoch, ...]


def fit(
    bags: Bags,
    objective: Objective,
    train: Rows,
    val: Rows,
    spec: MilSpec,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fitted:
    """Train `spec.model` on the bags `train` with AdamW; keep the epoch with the lowest loss on the bags `val`.

    train, val   indices of bags; standardisation and class weights are learned from `train` only. With no
                 `val` bags all epochs are run and the last one is kept.
    seed         fixes initial weights, dropout and order; the caller's generators are left as they were. On the
                 CPU the same seed and number of threads give the same bits.

    Raises MilError if there is nothing to train on, or if the loss stops being a finite number.
    """
    if bags.lengths[train].sum() == 0:
        raise MilError("the training bags hold no instances", todo="Embed more slides, or lower --min-coverage.")
    device = torch.device(device)
    with seeded(sub_seed(seed, 0), device):
        model = build_model(spec, bags.dim, objective.n_outputs)
        model.set_standardisation(*standardisation(bags, train))
        run = _Run(model.to(device), bags, objective, objective.bag_weights(torch.from_numpy(train)), spec)
        history, best, state = _epochs(run, train, val, np.random.default_rng(sub_seed(seed, 1)), on_epoch)
    model.load_state_dict(state)
    return Fitted(model.cpu().eval(), best, tuple(history))


@dataclass(frozen=True, eq=False)
class FoldRows:
    """One training of several: the bags that train, those that choose when to stop, and the seed."""

    train: Rows
    val: Rows
    seed: int


def fit_folds(
    bags: Bags,
    objective: Objective,
    folds: Sequence[FoldRows],
    spec: MilSpec,
    *,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> list[Fitted]:
    """Train `spec.model` once for each fold, with the same result as `fit` one after the other, up to rounding.

    `on_epoch` is told the position of the fold and its epoch. Raises MilError as `fit` does.
    """
    fitted = []
    for number, rows in enumerate(folds):
        report = None if on_epoch is None else partial(on_epoch, number)
        fitted.append(fit(bags, objective, rows.train, rows.val, spec, seed=rows.seed, device=device, on_epoch=report))
    return fitted


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same during one fit."""

    model: MilModel
    bags: Bags
    objective: Objective
    weights: Tensor
    spec: MilSpec

    def weighted_loss(self, batch: BagBatch) -> Tensor:
        """Sum of the weighted losses of a batch."""
        device = self.model.feature_mean.device
        targets = self.objective.targets(batch.indices)
        output = self.model(batch.features.to(device), batch.offsets, None if targets is None else targets.to(device))
        losses = self.objective.losses(output.logits, batch.indices)
        if output.auxiliary is not None:
            losses = losses + output.auxiliary
        return (losses * self.weights[batch.indices].to(device)).sum()


def _epochs(
    run: _Run, train: Rows, val: Rows, rng: np.random.Generator, on_epoch: Callable[[Epoch], None] | None
) -> tuple[list[Epoch], int, dict[str, Tensor]]:
    """All epochs until patience ends; the history, the best epoch and its state."""
    spec = run.spec
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay)
    history: list[Epoch] = []
    lowest, best, state = math.inf, 0, run.model.state_dict()
    gained, last_gain = math.inf, 0
    for number in range(1, spec.epochs + 1):
        train_loss = _train_epoch(run, optimizer, rng.permutation(train))
        val_loss = _mean_loss(run, val) if len(val) else None
        history.append(_finite(Epoch(number, train_loss, val_loss), spec))
        if on_epoch is not None:
            on_epoch(history[-1])
        if val_loss is None or val_loss < lowest:
            lowest, best = (math.inf if val_loss is None else val_loss), number
            state = copy.deepcopy(run.model.state_dict())
        if val_loss is None or val_loss < gained - MIN_GAIN:
            gained, last_gain = lowest, number
        if number - last_gain >= spec.patience:
            break
    log.debug("best epoch %d of %d, validation loss %.4f", best, len(history), lowest)
    return history, best, state


def _train_epoch(run: _Run, optimizer: torch.optim.Optimizer, order: Rows) -> float:
    run.model.train()
    total = 0.0
    for start in range(0, len(order), run.spec.batch_bags):
        step = order[start : start + run.spec.batch_bags]
        weight = float(run.weights[torch.from_numpy(step)].sum())
        optimizer.zero_grad(set_to_none=True)
        for piece in pieces(run.bags, step):  # the gradients of the pieces add up to those of the whole step
            loss = run.weighted_loss(piece) / weight
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach()) * weight
        optimizer.step()
    return total / float(run.weights[torch.from_numpy(order)].sum())


@torch.no_grad()
def _mean_loss(run: _Run, indices: Rows) -> float:
    """Weighted mean loss over some bags, in eval mode."""
    run.model.eval()
    total = 0.0
    for piece in pieces(run.bags, indices):
        total += float(run.weighted_loss(piece))
    return total / float(run.weights[torch.from_numpy(indices)].sum())


def _finite(epoch: Epoch, spec: MilSpec) -> Epoch:
    losses = [epoch.train_loss] + ([] if epoch.val_loss is None else [epoch.val_loss])
    if not all(map(math.isfinite, losses)):
        raise MilError(
            f"the loss is no longer a finite number in epoch {epoch.epoch} (learning_rate {spec.learning_rate})",
            todo="Lower --learning-rate.",
        )
    return epoch
