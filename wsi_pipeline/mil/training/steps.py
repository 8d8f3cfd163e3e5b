"""One training step: of one fold in pieces that fit in memory, or of several folds together on small bags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsi_pipeline.mil.models.stacked_folds import stackable, stacked_logits
from wsi_pipeline.mil.training import batching as pieces
from wsi_pipeline.mil.training.training_run import RowIndices, TrainingRun

SHARED_ROWS, SHARED_ROWS_ELSEWHERE = 4096, 65_536
"""Most instances in a shared step, on a CPU and on other devices. Beyond, intermediate results leave the CPU caches,
and arithmetic outweighs the calls that sharing saves."""

SHARED_BAGS = 64
"""Most bags per fold in a shared step, whose attention is an array of bags by rows."""


def sharing(fold: TrainingRun) -> int:
    """How many folds like this one can share a step; 0 if its model cannot be stacked, or its steps are too large."""
    spec, lengths = fold.spec, fold.bags.lengths
    if not stackable(fold.model) or spec.batch_bags > SHARED_BAGS:
        return 0
    rows = SHARED_ROWS if fold.device.type == "cpu" else SHARED_ROWS_ELSEWHERE
    drawn = np.minimum(lengths, spec.max_instances) if spec.max_instances else lengths
    largest = int(np.sort(drawn)[-spec.batch_bags :].sum())
    return min(rows, pieces.MAX_INSTANCES) // max(largest, 1)


def take_step(folds: Sequence[TrainingRun], steps: Sequence[RowIndices], together: bool) -> list[list[Tensor]]:
    """Take one step of each fold on its bags; returns its weighted losses, one sum per piece.

    together   whether the folds are computed as one stacked model, or one by one
    """
    for fold in folds:
        fold.optimizer.zero_grad()
    alone = zip(folds, steps, strict=True)
    losses = _shared(folds, steps) if together else [_alone(fold, step) for fold, step in alone]
    for fold in folds:
        fold.optimizer.step()
    return losses


def _alone(fold: TrainingRun, step: RowIndices) -> list[Tensor]:
    """Gradients of one fold, summed over the pieces of the step."""
    weight, total = fold.weight(step), []
    for piece in fold.pieces(step):
        loss = fold.loss(piece)
        (loss / weight).backward()  # type: ignore[no-untyped-call]
        total.append(loss.detach())
    return total


def _shared(folds: Sequence[TrainingRun], steps: Sequence[RowIndices]) -> list[list[Tensor]]:
    """Gradients of all folds at once; each step is small and so a single piece."""
    batches = [next(fold.pieces(step)) for fold, step in zip(folds, steps, strict=True)]
    every = stacked_logits([fold.model for fold in folds], batches, folds[0].arithmetic)
    losses = [fold.loss_of(logits, batch.indices) for fold, logits, batch in zip(folds, every, batches, strict=True)]
    parts = [loss / fold.weight(step) for fold, loss, step in zip(folds, losses, steps, strict=True)]
    torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]
    return [[loss.detach()] for loss in losses]
