"""Nested cross-validation: every slide predicted by models that never saw its patient, in training or in choosing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.zoo import MIL_MODELS
from wsi_pipeline.mil.tasks.make_task import make_task
from wsi_pipeline.mil.tasks.task import Task, numbers_of
from wsi_pipeline.mil.trained.checkpoint import save_ensemble
from wsi_pipeline.mil.training.objectives import Objective
from wsi_pipeline.mil.training.seeding import sub_seed
from wsi_pipeline.mil.training.training_run import Epoch, Fitted, FoldRows
from wsi_pipeline.mil.validation.choices import candidates, chosen_settings
from wsi_pipeline.mil.validation.nested import Candidate, Choice, Trainings, fit_and_choose, predicted
from wsi_pipeline.mil.validation.validation_metrics import validation_metrics
from wsi_pipeline.splits.assign import Strata, checked_table, make_splits
from wsi_pipeline.splits.fold import Fold, Splits
from wsi_pipeline.splits.untrained import sides_of, untrained_json, untrained_rows, untrained_warnings, with_others
from wsi_pipeline.statistics.metric_words import CLASS_TASKS
from wsi_pipeline.wording import counted, listed

Json = dict[str, Any]


@dataclass(frozen=True)
class TrainingProgress:
    """A finished epoch: of training `fold` (from 0) of `n_folds`, each of at most `max_epochs` epochs.

    There are folds x members x repeats x candidates trainings. Several may run in parallel, so their epochs may
    alternate.
    """

    fold: int
    n_folds: int
    epoch: Epoch
    max_epochs: int


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The result of a cross-validation.

    task         what was predicted
    predictions  one row per tested slide and repeat, in the order of the table: slide_id, patient_id, repeat, fold,
                 outcome and prediction columns; with a fixed split only its test slides
    splits       the folds, as row positions of the table; `assignment` is the same as a table (repeat, fold, part,
                 slide_id, patient_id)
    choices      of each fold, in the order of the splits: its task and the chosen candidate with its trained model
    metrics      the content of metrics.json
    """

    task: Task
    predictions: pd.DataFrame
    splits: Splits
    assignment: pd.DataFrame
    choices: tuple[Choice, ...]
    metrics: Json

    def save_models(
        self, folder: Path, spec: MilSpec, encoder: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> None:
        """Write the model of every fold with its settings into `folder`; see `save_ensemble`."""
        save_ensemble(
            folder,
            [fitted.model for fitted in self.fitted],
            spec=spec,
            task=self.task,
            specs=[choice.chosen.spec for choice in self.choices],
            tasks=[choice.task for choice in self.choices],
            encoder=encoder,
            provenance=provenance,
        )

    def __repr__(self) -> str:
        values = {name: found.get("value") for name, found in self.metrics["pooled"].items()}
        listed = ", ".join(f"{name} {'undefined' if v is None else format(v, '.3f')}" for name, v in values.items())
        return f"<CrossValidation of {self.task.name}, {counted(len(self.splits.folds), 'fold')}: {listed}>"

    def _repr_html_(self) -> str:
        """The pooled metrics with their intervals, in a notebook."""
        html: str = pd.DataFrame(self.metrics["pooled"]).T.to_html(float_format="{:.3f}".format)
        return html

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes; empty if the task has none."""
        return tuple(self.task.to_json().get("classes", ()))

    @property
    def fitted(self) -> tuple[Fitted, ...]:
        """The trained model of each fold, with its best epoch and history."""
        return tuple(choice.chosen.fitted for choice in self.choices)

    @property
    def histories(self) -> list[list[dict[str, float | None]]]:
        """For each fold its epochs in order: {"epoch", "train_loss", "val_loss"}."""
        return [[vars(epoch).copy() for epoch in fitted.history] for fitted in self.fitted]


FoldBags = Callable[[int, Objective, FoldRows, Bags], Bags]
"""Number of a training, its objective, training and validation rows, the bags -> the same bags with other features."""


def cross_validate_bags(
    bags: Bags,
    table: pd.DataFrame,
    spec: MilSpec,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[TrainingProgress], None] | None = None,
    fold_bags: FoldBags | None = None,
) -> CrossValidation:
    """Train, choose and test on folds over patients as `spec` asks; the test part of a fold chooses nothing.

    table   columns slide_id, patient_id, the outcome of `spec.task`, and optionally split (train, val, test: one fold
            as given), site, content (a digest of the file)
    bags    of at least the rows of the table, in any order
    fold_bags   features that are learned inside each fold, instead of those of `bags`

    Raises SplitError if no honest folds can be made (see `splits.assign.make_splits`), MilError for a missing bag or
    an unusable outcome, UsageError for unknown settings in `spec.choose`.
    """
    specs = candidates(spec)
    for candidate in specs:
        MIL_MODELS.get(candidate.model)
    whole = _table(table, spec)
    strange = untrained_rows(whole) if spec.task in CLASS_TASKS else np.zeros(len(whole), bool)
    table, every = whole[~strange].reset_index(drop=True), bags
    task = _task(table, spec)
    splits = make_splits(table, spec, strata_of_task(task, table))
    bags = _aligned(bags, table)
    trainings = [_trainings(fold, spec) for fold in splits.folds]
    report = _reporter(progress, sum(len(each.members) for each in trainings), len(specs), spec)
    columns = ["slide_id", "patient_id", *task.columns]
    if fold_bags is None:
        choices = fit_and_choose(bags, table, task, trainings, specs, device=device, on_epoch=report)
        own = [bags] * len(choices)
    else:
        if strange.any():
            raise MilError("features learned in a fold cannot be tested on slides of a class that is not trained")
        own = _learned(fold_bags, bags, table, task, trainings, spec)
        choices = [
            fit_and_choose(found, table, task, [training], specs, device=device, on_epoch=_shifted(report, number))[0]
            for number, (found, training) in enumerate(zip(own, trainings, strict=True))
        ]
    tested = [
        _tested(found, table[columns], fold, choice, device)
        for found, fold, choice in zip(own, splits.folds, choices, strict=True)
    ]
    predictions = _in_order(tested, columns)
    facts = [_facts(fold, choice, spec) for fold, choice in zip(splits.folds, choices, strict=True)]
    warnings = [*splits.warnings, *_choice_warnings(specs, splits)]
    metrics = validation_metrics(task, predictions, facts, spec, warnings, fixed=splits.fixed)
    assignment = splits.assignment(table)
    if strange.any():
        others = whole[strange].reset_index(drop=True)
        tested_too = others[sides_of(others) == "test"].reset_index(drop=True)
        predictions = _with_untrained(predictions, every, tested_too, choices[0], device)
        assignment = with_others(assignment, others)
        metrics |= {"untrained": untrained_json(others)}
        metrics["warnings"] = [*untrained_warnings(others), *metrics["warnings"]]
    return CrossValidation(task, predictions, splits, assignment, tuple(choices), metrics)


def _learned(
    fold_bags: FoldBags, bags: Bags, table: pd.DataFrame, task: Task, trainings: Sequence[Trainings], spec: MilSpec
) -> list[Bags]:
    """The bags of each fold. What learns them is given the outcomes of the training part and its validation part."""
    found = []
    for number, training in enumerate(trainings):
        objective = task.learned(table.iloc[training.train]).objective(table, spec)
        found.append(fold_bags(number, objective, training.members[0], bags))
    return found


def _shifted(report: Callable[[int, int, Epoch], None] | None, by: int) -> Callable[[int, int, Epoch], None] | None:
    return None if report is None else lambda candidate, one, epoch: report(candidate, one + by, epoch)


def _table(table: pd.DataFrame, spec: MilSpec) -> pd.DataFrame:
    """The checked table, rows counted from 0; labels of a regression as numbers."""
    table = checked_table(table, ("label",) if spec.task in CLASS_TASKS else ())
    return table.assign(label=numbers_of(table, "label")) if spec.task == "regression" else table


def _task(table: pd.DataFrame, spec: MilSpec) -> Task:
    """The task. Raises MilError without labelled slides, or with too few patients with an event."""
    if len(table) == 0:
        raise MilError("no labelled slides to train on", todo="Fill in the outcome of each slide in the CSV and rerun.")
    task = make_task(table, spec)
    if task.name == "survival" and not spec.allow_few:
        events = int(table.loc[table["event"].astype(float) == 1, "patient_id"].nunique())
        if events < spec.folds:
            raise MilError(
                f"{spec.folds}-fold validation of survival needs at least {spec.folds} patients with an event, "
                f"got {events}",
                todo="Use fewer --folds, or accept it with --allow-few",
            )
    return task


def strata_of_task(task: Task, table: pd.DataFrame) -> Strata:
    """What is spread evenly over the folds of a task: its classes, or groups of its outcome."""
    codes = task.strata(table)
    if task.classes:
        return Strata(codes, task.classes)
    what = "outcome group" if task.name == "regression" else "event and time group"
    return Strata(codes, tuple(f"{what} {k + 1}" for k in range(int(codes.max()) + 1)), classes=False)


def _aligned(bags: Bags, table: pd.DataFrame) -> Bags:
    """Bags in the order of the table; the same object if they already are."""
    wanted = tuple(table["slide_id"])
    if bags.slide_ids == wanted:
        return bags
    where = {slide: index for index, slide in enumerate(bags.slide_ids)}
    missing = [str(slide) for slide in wanted if slide not in where]
    if missing:
        raise MilError(f"no features for {listed(missing)}", todo="Embed these slides, or take them out of the table.")
    return bags.subset([where[slide] for slide in wanted])


def _trainings(fold: Fold, spec: MilSpec) -> Trainings:
    """One training for the fold, or one per member of its committee."""
    seed = _seed_of(fold, spec)
    if not fold.inner:
        return Trainings(fold.train, (FoldRows(fold.train, fold.val, seed),))
    members = [FoldRows(*rows, sub_seed(seed, number)) for number, rows in enumerate(fold.inner)]
    return Trainings(fold.train, tuple(members))


def _seed_of(fold: Fold, spec: MilSpec) -> int:
    return sub_seed(spec.seed, fold.number, *([fold.repeat] if fold.repeat else []))


def _reporter(
    progress: Callable[[TrainingProgress], None] | None, n_trainings: int, n_candidates: int, spec: MilSpec
) -> Callable[[int, int, Epoch], None] | None:
    if progress is None:
        return None
    total = n_trainings * n_candidates
    return lambda candidate, one, epoch: progress(
        TrainingProgress(candidate * n_trainings + one, total, epoch, spec.epochs)
    )


def _tested(bags: Bags, table: pd.DataFrame, fold: Fold, choice: Choice, device: torch.device | str) -> pd.DataFrame:
    """The predictions of one fold's test rows, with the index of their rows in the table."""
    found = predicted(bags, table, choice.task, choice.chosen.fitted, fold.test, device)
    return found.assign(repeat=fold.repeat, fold=fold.number)


def _with_untrained(
    predictions: pd.DataFrame, bags: Bags, others: pd.DataFrame, choice: Choice, device: torch.device | str
) -> pd.DataFrame:
    """The predictions, followed by those of slides whose class was not trained in the fixed split."""
    columns = ["slide_id", "patient_id", *choice.task.columns]
    everyone = np.arange(len(others), dtype=np.int64)
    found = predicted(_aligned(bags, others), others[columns], choice.task, choice.chosen.fitted, everyone, device)
    return pd.concat([predictions, found.assign(repeat=0, fold=0)[list(predictions.columns)]], ignore_index=True)


def _in_order(tested: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """All predictions, repeat by repeat, in the order of the table."""
    joined = pd.concat(tested)
    order = np.lexsort((joined.index.to_numpy(), joined["repeat"].to_numpy()))
    names = [*columns[:2], "repeat", "fold", *columns[2:]]
    return joined.iloc[order].reset_index(drop=True)[[*names, *(c for c in joined.columns if c not in names)]]


def _facts(fold: Fold, choice: Choice, spec: MilSpec) -> Json:
    """What metrics.json holds of a fold beside its metrics."""
    chosen = choice.chosen
    found: Json = {
        "repeat": fold.repeat,
        "fold": fold.number,
        "n_train": len(fold.train),
        "n_val": len(fold.val),
        **({"committee": len(fold.inner)} if fold.inner else {}),
        "n_test": len(fold.test),
        "best_epoch": chosen.fitted.best_epoch,
        "epochs": len(chosen.fitted.history),
    }
    if spec.choose:
        found["chosen"] = chosen_settings(chosen.spec, spec)
        found["candidates"] = [_candidate_json(candidate, spec) for candidate in choice.candidates]
    if len(choice.task.classes) == 2:
        found["threshold"] = chosen.threshold
    return found


def _candidate_json(candidate: Candidate, spec: MilSpec) -> Json:
    return {
        **chosen_settings(candidate.spec, spec),
        "selection": candidate.selection if np.isfinite(candidate.selection) else None,
        "val_loss": candidate.val_loss if np.isfinite(candidate.val_loss) else None,
    }


def _choice_warnings(specs: Sequence[MilSpec], splits: Splits) -> list[str]:
    if len(specs) == 1:
        return []
    blind = sum(len(fold.val) == 0 and not fold.inner for fold in splits.folds)
    return [f"{blind} folds had no validation slides: they keep the first setting of --choose."] if blind else []
