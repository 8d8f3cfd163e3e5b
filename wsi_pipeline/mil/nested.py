"""Inside one outer fold: train every candidate, let the validation part choose, never look at the test part.

What is given to the functions here are the training and validation rows of each fold alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.fold import Epoch, Fitted, FoldRows
from wsi_pipeline.mil.inference import outputs
from wsi_pipeline.mil.tasks.base import Task
from wsi_pipeline.mil.training import fit_folds
from wsi_pipeline.specs import MilSpec


@dataclass(frozen=True, eq=False)
class Candidate:
    """One trained candidate in one fold.

    selection   what the task's choice maximises, on the validation rows; NaN where it is undefined
    val_loss    lowest validation loss, which breaks ties; infinite without validation rows
    validation  predictions of the validation rows, with their outcomes
    """

    spec: MilSpec
    fitted: Fitted
    selection: float
    val_loss: float
    validation: pd.DataFrame

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better."""
        return (-math.inf if math.isnan(self.selection) else self.selection, -self.val_loss)


@dataclass(frozen=True, eq=False)
class Choice:
    """The candidates of one fold, the chosen one among them, and the task as its training rows taught it."""

    task: Task
    candidates: tuple[Candidate, ...]
    chosen: Candidate


def fit_and_choose(
    bags: Bags,
    table: pd.DataFrame,
    task: Task,
    folds: Sequence[FoldRows],
    specs: Sequence[MilSpec],
    *,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[int, int, Epoch], None] | None = None,
) -> list[Choice]:
    """For each fold the best of the candidates `specs` by its own validation rows; the first where they cannot say.

    table      row i is bag i; with the outcome columns
    on_epoch   told the position of candidate and fold, and the epoch
    """
    tasks = [task.learned(table.iloc[rows.train]) for rows in folds]
    found: list[list[Candidate]] = [[] for _ in folds]
    for number, spec in enumerate(specs):
        trained = _fit_all(bags, table, tasks, folds, spec, device, _reporter(on_epoch, number))
        for k, fitted in enumerate(trained):
            found[k].append(_judged(bags, table, tasks[k], folds[k].val, spec, fitted, device))
    return [
        Choice(task, tuple(candidates), max(candidates, key=lambda candidate: candidate.rank))
        for task, candidates in zip(tasks, found, strict=True)
    ]


def predicted(
    bags: Bags, table: pd.DataFrame, task: Task, fitted: Fitted, rows: NDArray[np.int64], device: torch.device | str
) -> pd.DataFrame:
    """The rows of the table with the prediction columns of one model, keeping their index."""
    values = outputs(fitted.model, bags, rows, device=device)
    fitted.model.cpu()
    chosen = table.iloc[rows]
    return pd.concat([chosen, task.outcomes(values).set_index(chosen.index)], axis=1)


def _fit_all(
    bags: Bags,
    table: pd.DataFrame,
    tasks: Sequence[Task],
    folds: Sequence[FoldRows],
    spec: MilSpec,
    device: torch.device | str,
    on_epoch: Callable[[int, Epoch], None] | None,
) -> list[Fitted]:
    """One candidate in all folds together; each aims at what its own training rows taught it."""
    objectives = [task.objective(table, spec) for task in tasks]
    return fit_folds(bags, objectives, folds, spec, device=device, on_epoch=on_epoch)


def _judged(
    bags: Bags,
    table: pd.DataFrame,
    task: Task,
    val: NDArray[np.int64],
    spec: MilSpec,
    fitted: Fitted,
    device: torch.device | str,
) -> Candidate:
    validation = predicted(bags, table, task, fitted, val, device)
    selection = task.selection(validation) if len(val) else math.nan
    losses = [epoch.val_loss for epoch in fitted.history if epoch.val_loss is not None]
    return Candidate(spec, fitted, selection, min(losses, default=math.inf), validation)


def _reporter(
    on_epoch: Callable[[int, int, Epoch], None] | None, candidate: int
) -> Callable[[int, Epoch], None] | None:
    return None if on_epoch is None else lambda fold, epoch: on_epoch(candidate, fold, epoch)
