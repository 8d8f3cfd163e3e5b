"""Inside one outer fold: train every candidate and choose by the validation part, never by the test part.

To train and choose, the functions here are given only the training and validation rows of a fold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.tasks.classification import ClassEvaluation
from wsi_pipeline.mil.tasks.task import Task
from wsi_pipeline.mil.trained.committee import joined
from wsi_pipeline.mil.trained.inference import outputs
from wsi_pipeline.mil.training.fit import fit_folds
from wsi_pipeline.mil.training.training_run import Epoch, Fitted, FoldRows


@dataclass(frozen=True, eq=False)
class Trainings:
    """The trainings of one outer fold.

    train     rows from which the task learns its parameters
    members   one training, or several (a committee) whose predictions are averaged
    """

    train: NDArray[np.int64]
    members: tuple[FoldRows, ...]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One trained candidate in one fold.

    selection   what the choice maximises, on the validation rows; NaN if undefined
    val_loss    lowest validation loss (mean over members), which breaks ties; infinite without validation rows
    validation  predictions of the validation rows, with their outcomes; in a committee each row is predicted by the
                member that used it for early stopping. `fold` is the number of that member, because risks of
                different Cox models have no common zero
    threshold   chosen on the validation rows, for two classes; None if they cannot choose one
    """

    spec: MilSpec
    fitted: Fitted
    selection: float
    val_loss: float
    validation: pd.DataFrame
    threshold: float | None

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better."""
        return (-math.inf if math.isnan(self.selection) else self.selection, -self.val_loss)


@dataclass(frozen=True, eq=False)
class Choice:
    """The candidates of one fold, the chosen one, and the task with the parameters of this fold."""

    task: Task
    candidates: tuple[Candidate, ...]
    chosen: Candidate


def fit_and_choose(
    bags: Bags,
    table: pd.DataFrame,
    task: Task,
    folds: Sequence[Trainings],
    specs: Sequence[MilSpec],
    *,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[int, int, Epoch], None] | None = None,
) -> list[Choice]:
    """For each fold the best of the candidates `specs` by its validation rows; without any, the first candidate.

    table      row i is bag i; with the outcome columns
    on_epoch   called with the positions of the candidate and of the training (over all folds), and the epoch
    """
    tasks = [task.learned(table.iloc[fold.train]) for fold in folds]
    found: list[list[Candidate]] = [[] for _ in folds]
    for number, spec in enumerate(specs):
        trained = _fit_all(bags, table, tasks, folds, spec, device, _reporter(on_epoch, number))
        for k, members in enumerate(trained):
            found[k].append(_judged(bags, table, tasks[k], folds[k], spec, members, device))
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
    folds: Sequence[Trainings],
    spec: MilSpec,
    device: torch.device | str,
    on_epoch: Callable[[int, Epoch], None] | None,
) -> list[list[Fitted]]:
    """Train one candidate in all folds; each has the objective of its own task."""
    aims = [task.objective(table, spec) for task in tasks]
    objectives = [aim for aim, fold in zip(aims, folds, strict=True) for _ in fold.members]
    members = [member for fold in folds for member in fold.members]
    each = iter(fit_folds(bags, objectives, members, replace(spec, committee=1), device=device, on_epoch=on_epoch))
    return [[next(each) for _ in fold.members] for fold in folds]


def _judged(
    bags: Bags,
    table: pd.DataFrame,
    task: Task,
    fold: Trainings,
    spec: MilSpec,
    members: Sequence[Fitted],
    device: torch.device | str,
) -> Candidate:
    pairs = list(zip(members, fold.members, strict=True))
    parts = [predicted(bags, table, task, fitted, rows.val, device) for fitted, rows in pairs]
    validation = pd.concat([part.assign(fold=number) for number, part in enumerate(parts)])
    evaluation = task.evaluate(validation) if len(validation) else None
    selection = evaluation.selection() if evaluation else math.nan
    threshold = evaluation.threshold() if isinstance(evaluation, ClassEvaluation) else None
    losses = [min((epoch.val_loss for epoch in fitted.history if epoch.val_loss is not None), default=math.inf)
              for fitted in members]  # fmt: skip
    own = replace(spec, committee=len(members))
    return Candidate(own, joined(members), selection, fmean(losses), validation, threshold)


def _reporter(
    on_epoch: Callable[[int, int, Epoch], None] | None, candidate: int
) -> Callable[[int, Epoch], None] | None:
    return None if on_epoch is None else lambda fold, epoch: on_epoch(candidate, fold, epoch)
