"""Training of one fold: seeded, stopped by the validation bags alone, the best state kept.

The test fold does not enter: `fit` is given the bags that train and those that choose when to stop, and reads
no others.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event, Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.encoders.device import choose_precision
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil import pieces
from wsi_pipeline.mil.abmil import AttentionPooling
from wsi_pipeline.mil.bags import BagBatch, Bags
from wsi_pipeline.mil.contract import Dropout, MilModel
from wsi_pipeline.mil.models import build_model
from wsi_pipeline.mil.objectives import Objective
from wsi_pipeline.mil.seeding import seeded, sub_seed
from wsi_pipeline.mil.standardise import Moments
from wsi_pipeline.specs import MilSpec

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]


MIN_GAIN = 1e-3
"""A validation loss (nats) that falls by less does not renew the patience; the lowest is kept all the same."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training bags: weighted mean losses; no val_loss where there are no validation bags.

    The training loss holds the network's own (CLAM's instances), which the validation loss does not.
    """

    epoch: int
    train_loss: float
    val_loss: float | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model (on the CPU, in eval mode), the epoch it is from (counted from 1), and the way there."""

    model: MilModel
    best_epoch: int
    history: tuple[Epoch, ...]


@dataclass(frozen=True, eq=False)
class FoldRows:
    """One training of several: the bags that train, those that choose when to stop, and the seed."""

    train: Rows
    val: Rows
    seed: int


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
    seed         fixes initial weights, dropout, order and drawn instances; the caller's generators are left as they
                 were. On the CPU the same seed and number of threads give the same bits.

    Raises MilError if there is nothing to train on, or if the loss stops being a finite number.
    """
    rows = FoldRows(train, val, seed)
    run = _prepare(bags, objective, rows, spec, torch.device(device), Moments.of(bags, train))
    return _train(run, rows, on_epoch, Event())


def fit_folds(
    bags: Bags,
    objective: Objective | Sequence[Objective],
    folds: Sequence[FoldRows],
    spec: MilSpec,
    *,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[int, Epoch], None] | None = None,
) -> list[Fitted]:
    """Train `spec.model` once for each fold, with the same result as `fit` one after the other, up to rounding.

    objective   one for all folds, or one for each
    on_epoch    is told the position of the fold and its epoch; never called by two folds at once

    The features are read once for the standardisation of all folds. On a CPU of several threads the folds train side
    by side, each on its share of the threads, unless a bag is so large that one at a time is all that should be in
    memory. Raises MilError as `fit` does.
    """
    objectives = list(objective) if isinstance(objective, Sequence) else [objective] * len(folds)
    every = np.unique(np.concatenate([fold.train for fold in folds])) if folds else np.zeros(0, np.int64)
    moments, place = Moments.of(bags, every), torch.device(device)
    runs = [_prepare(bags, *pair, spec, place, moments) for pair in zip(objectives, folds, strict=True)]
    lock, stop = Lock(), Event()

    def one(number: int) -> Fitted:
        def report(epoch: Epoch) -> None:
            with lock:
                if on_epoch is not None:
                    on_epoch(number, epoch)

        return _train(runs[number], folds[number], report, stop)

    at_once = _side_by_side(bags, len(folds), place)
    return [one(k) for k in range(len(folds))] if at_once == 1 else _together(one, len(folds), at_once, stop)


def _side_by_side(bags: Bags, n_folds: int, device: torch.device) -> int:
    """How many folds to train at once."""
    if device.type != "cpu" or bags.lengths.max(initial=0) > pieces.MAX_INSTANCES:
        return 1
    return max(1, min(n_folds, torch.get_num_threads()))


def _together(one: Callable[[int], Fitted], n_folds: int, at_once: int, stop: Event) -> list[Fitted]:
    """The folds on threads of their own, which share torch's threads; if one fails, or on Ctrl-C, the others stop."""
    threads = torch.get_num_threads()
    share = threads // at_once
    with ThreadPoolExecutor(at_once, "fold", torch.set_num_threads, (share,)) as pool:
        try:
            futures = [pool.submit(one, number) for number in range(n_folds)]
            done = wait(futures, return_when=FIRST_EXCEPTION).done
            failed = [future for future in futures if future in done and future.exception() is not None]
            return [future.result() for future in failed or futures]
        finally:
            stop.set()
            torch.set_num_threads(threads)


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same during one fit."""

    model: MilModel
    bags: Bags
    objective: Objective
    weights: Tensor
    spec: MilSpec
    rng: np.random.Generator
    arithmetic: torch.dtype

    def weighted_loss(self, batch: BagBatch) -> Tensor:
        """Sum of the weighted losses of a batch."""
        device = self.model.feature_mean.device
        targets = self.objective.targets(batch.indices)
        features, targets = batch.features.to(device), None if targets is None else targets.to(device)
        with torch.autocast(device.type, self.arithmetic, enabled=self.arithmetic != torch.float32):
            output = self.model(features, batch.offsets, targets)
        losses = self.objective.losses(output.logits.float(), batch.indices)
        if output.auxiliary is not None:
            losses = losses + output.auxiliary
        return (losses * self.weights[batch.indices].to(device)).sum()


def _prepare(
    bags: Bags, objective: Objective, rows: FoldRows, spec: MilSpec, device: torch.device, moments: Moments
) -> _Run:
    """A fresh model on its device, with generators of its own."""
    if bags.lengths[rows.train].sum() == 0:
        raise MilError("the training bags hold no instances", todo="Embed more slides, or lower --min-coverage.")
    with seeded(sub_seed(rows.seed, 0), device):
        model = build_model(spec, bags.dim, objective.n_outputs)
    model.set_standardisation(*moments.standardisation(rows.train))
    luck = torch.Generator(device).manual_seed(sub_seed(rows.seed, 2))
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = luck
    weights = objective.bag_weights(torch.from_numpy(rows.train))
    rng = np.random.default_rng(sub_seed(rows.seed, 1))
    return _Run(model.to(device), bags, objective, weights, spec, rng, _arithmetic(model, spec, device))


def _arithmetic(model: MilModel, spec: MilSpec, device: torch.device) -> torch.dtype:
    """`auto` on a CPU is bf16 for models of the fused operation only: elsewhere each new bag size compiles kernels."""
    fused = any(isinstance(module, AttentionPooling) for module in model.modules())
    if spec.precision == "auto" and device.type == "cpu" and not fused:
        return torch.float32
    return choose_precision(spec.precision, device).dtype


def _train(run: _Run, rows: FoldRows, on_epoch: Callable[[Epoch], None] | None, stop: Event) -> Fitted:
    history, best, state = _epochs(run, rows, on_epoch, stop)
    run.model.load_state_dict(state)
    for module in run.model.modules():
        if isinstance(module, Dropout):
            module.generator = None
    return Fitted(run.model.cpu().eval(), best, tuple(history))


def _epochs(
    run: _Run, rows: FoldRows, on_epoch: Callable[[Epoch], None] | None, stop: Event
) -> tuple[list[Epoch], int, dict[str, Tensor]]:
    """All epochs until patience ends; the history, the best epoch and its state."""
    spec = run.spec
    optimizer = torch.optim.AdamW(
        run.model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
    )
    history: list[Epoch] = []
    lowest, best, state = math.inf, 0, run.model.state_dict()
    gained, last_gain = math.inf, 0
    for number in range(1, spec.epochs + 1):
        train_loss = _train_epoch(run, optimizer, run.rng.permutation(rows.train), stop)
        val_loss = _mean_loss(run, rows.val) if len(rows.val) else None
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


def _train_epoch(run: _Run, optimizer: torch.optim.Optimizer, order: Rows, stop: Event) -> float:
    run.model.train()
    total = []
    for start in range(0, len(order), run.spec.batch_bags):
        if stop.is_set():
            raise CancelledError("another fold failed")
        step = order[start : start + run.spec.batch_bags]
        weight = float(run.weights[torch.from_numpy(step)].sum())
        optimizer.zero_grad(set_to_none=True)
        for piece in pieces.sampled_pieces(run.bags, step, run.spec.max_instances, run.rng):
            loss = run.weighted_loss(piece)  # the gradients of the pieces add up to those of the whole step
            (loss / weight).backward()  # type: ignore[no-untyped-call]
            total.append(loss.detach())
        optimizer.step()
    return _sum(total) / float(run.weights[torch.from_numpy(order)].sum())


@torch.no_grad()
def _mean_loss(run: _Run, indices: Rows) -> float:
    """Weighted mean loss over some bags, in eval mode."""
    run.model.eval()
    total = [run.weighted_loss(piece) for piece in pieces.pieces(run.bags, indices)]
    return _sum(total) / float(run.weights[torch.from_numpy(indices)].sum())


def _sum(losses: Sequence[Tensor]) -> float:
    """Their sum in float64, fetched from the device at once."""
    return float(torch.stack(list(losses)).cpu().double().sum())


def _finite(epoch: Epoch, spec: MilSpec) -> Epoch:
    losses = [epoch.train_loss] + ([] if epoch.val_loss is None else [epoch.val_loss])
    if not all(map(math.isfinite, losses)):
        raise MilError(
            f"the loss is no longer a finite number in epoch {epoch.epoch} (learning_rate {spec.learning_rate})",
            todo="Lower --learning-rate.",
        )
    return epoch
