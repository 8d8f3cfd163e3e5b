"""Fit a linear model along a path of L2 penalties, from strong to weak; the validation bags choose among them.

At each penalty the model is fitted to convergence from the previous solution (L-BFGS in float64, on the CPU). A fit
counts as an epoch: the history holds one line per penalty, `best_epoch` is the number of the chosen one, and
`--patience` ends the path. Without validation bags the penalty is 1 / n, scikit-learn's default (C = 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor

from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.linear import LinearMean
from wsi_pipeline.mil.training.training_run import Epoch, RowIndices, TrainingRun

PENALTIES = tuple(float(10.0 ** (exponent / 2)) for exponent in range(4, -11, -1))
"""Lambda of mean loss + lambda / 2 |W|^2, for values of standard deviation 1: 100 to 0.00001."""
_ROWS = 4096
_FLAT = 1e-6
_MOST_STEPS = 200


def is_linear(run: TrainingRun) -> bool:
    """Whether a training run is of a linear model."""
    return isinstance(run.model.network, LinearMean)


def fit_path(run: TrainingRun, report: Callable[[Epoch], None], stopped: Callable[[], bool]) -> None:
    """Fit at each penalty in turn, recording it in `run`; features are standardised by the training bags' means.

    stopped   whether to give up because another fold has failed
    """
    train, val = (bag_means(run.bags, rows) for rows in (run.rows.train, run.rows.val))
    mean, spread = train.mean(0), train.std(0, correction=0)
    run.model.set_standardisation(mean.float(), spread.where(spread > _FLAT, 1.0).float())
    model_mean, model_std = run.model.feature_mean.cpu().double(), run.model.feature_std.cpu().double()
    train, val = ((part - model_mean) / model_std for part in (train, val))
    weight = torch.zeros(run.model.n_outputs, train.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(run.model.n_outputs, dtype=torch.float64, requires_grad=True)
    for penalty in PENALTIES if len(run.rows.val) else (1 / len(train),):
        if stopped():
            return
        _converge(run, train, weight, bias, penalty)
        head = cast(LinearMean, run.model.network).head
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)
            losses = [
                float(_loss(run, part @ weight.T + bias, rows)) if len(rows) else None
                for part, rows in ((train, run.rows.train), (val, run.rows.val))
            ]
        report(run.note(cast(float, losses[0]), losses[1]))
        if run.over:
            return


def bag_means(bags: Bags, indices: RowIndices) -> Tensor:
    """Mean of the instances of each bag, float64 (b, D); 0 for an empty bag."""
    found = torch.zeros(len(indices), bags.dim, dtype=torch.float64)
    for place, index in enumerate(np.asarray(indices).tolist()):
        if bags.lengths[index]:
            found[place] = sum(block.double().sum(0) for block in _blocks(bags, index)) / int(bags.lengths[index])
    return found


def _blocks(bags: Bags, index: int) -> Iterator[Tensor]:
    rows = bags.rows(index)
    for start in range(rows.start, rows.stop, _ROWS):
        part = bags.features[start : min(start + _ROWS, rows.stop)]
        yield part.cpu() if isinstance(part, Tensor) else torch.from_numpy(np.array(part))


def _loss(run: TrainingRun, outputs: Tensor, rows: RowIndices) -> Tensor:
    """Weighted mean loss of some bags in one batch, so that Cox risk sets are whole."""
    indices = torch.from_numpy(rows)
    weights = run.weights[indices].to(outputs)
    return (run.objective.losses(outputs, indices) * weights).sum() / weights.sum()


def _converge(run: TrainingRun, train: Tensor, weight: Tensor, bias: Tensor, penalty: float) -> None:
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_MOST_STEPS, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        """The penalised loss, its gradient stored."""
        optimizer.zero_grad()
        loss = _loss(run, train @ weight.T + bias, run.rows.train) + penalty / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
