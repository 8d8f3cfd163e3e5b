"""Cross-validation: every fold trained on its own, each slide predicted by a model that never saw its patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from wsi_pipeline.cohort.splits import Fold, Rows, Splits, check_no_leaks, checked_table, make_splits
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.inference import prediction_table, probabilities
from wsi_pipeline.mil.metrics import classification_metrics
from wsi_pipeline.mil.objectives import Classification
from wsi_pipeline.mil.seeding import sub_seed
from wsi_pipeline.mil.training import Epoch, Fitted, fit
from wsi_pipeline.specs import MilSpec


@dataclass(frozen=True)
class Progress:
    """An epoch was finished: of which fold (counted from 0) of how many, and how many epochs there are at most."""

    fold: int
    n_folds: int
    epoch: Epoch
    max_epochs: int


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The result of a cross-validation.

    predictions  one row a tested slide, in the order of the table: slide_id, patient_id, fold, label, predicted,
                 p_<class>...; with a fixed split only its test slides
    splits       the folds, as row positions of the table; `assignment` is the same as a table (fold, part,
                 slide_id, patient_id)
    fitted       the trained model of each fold, with its best epoch and history
    metrics      the content of metrics.json
    """

    classes: tuple[str, ...]
    predictions: pd.DataFrame
    splits: Splits
    assignment: pd.DataFrame
    fitted: tuple[Fitted, ...]
    metrics: dict[str, Any]

    @property
    def histories(self) -> list[list[dict[str, float | None]]]:
        """For each fold its epochs in order: {"epoch", "train_loss", "val_loss"}."""
        return [[vars(epoch).copy() for epoch in fold.history] for fold in self.fitted]


def cross_validate(
    bags: Bags,
    table: pd.DataFrame,
    spec: MilSpec,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> CrossValidation:
    """Train and test `spec.model` on folds over patients; the test fold chooses nothing.

    table   columns slide_id, patient_id, label and, optionally, split (train, val, test: one fold as given)
    bags    of at least the slides in the table, in any order

    Raises MilError where the folds cannot be made honestly (see `cohort.splits.make_splits`), or a bag is missing.
    """
    table = checked_table(table)
    splits = make_splits(table, spec)
    rows = _bag_indices(bags, table)
    labels = _codes(bags, table, rows, splits.classes)
    objective = Classification(labels, len(splits.classes), balanced=spec.class_weights)
    fitted, tested = [], []
    for fold in splits.folds:
        check_no_leaks(table, fold)
        train, val, test = rows[fold.train], rows[fold.val], rows[fold.test]
        report = _reporter(progress, fold, splits, spec)
        seed = sub_seed(spec.seed, fold.number)
        fitted.append(fit(bags, objective, train, val, spec, seed=seed, device=device, on_epoch=report))
        values = probabilities(fitted[-1].model, bags, test, device=device)
        tested.append(_tested(table.iloc[fold.test], fold, values, splits.classes))
        fitted[-1].model.cpu()
    predictions = pd.concat(tested).sort_index().reset_index(drop=True)
    metrics = _metrics(predictions, splits, fitted, spec)
    return CrossValidation(splits.classes, predictions, splits, splits.assignment(table), tuple(fitted), metrics)


def _bag_indices(bags: Bags, table: pd.DataFrame) -> Rows:
    """The bag of each row of the table."""
    where = {slide: index for index, slide in enumerate(bags.slide_ids)}
    missing = [str(slide) for slide in table["slide_id"] if slide not in where]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise MilError(
            f"no features for {', '.join(missing[:5])}{more}", todo="Embed these slides, or take them out of the table."
        )
    return np.array([where[slide] for slide in table["slide_id"]], dtype=np.int64)


def _codes(bags: Bags, table: pd.DataFrame, rows: Rows, classes: tuple[str, ...]) -> torch.Tensor:
    """The class number of each bag; bags that are not in the table get 0 and are never asked for."""
    labels = torch.zeros(len(bags), dtype=torch.int64)
    codes = table["label"].map({name: code for code, name in enumerate(classes)})
    labels[torch.from_numpy(rows)] = torch.tensor(codes.tolist())
    return labels


def _reporter(
    progress: Callable[[Progress], None] | None, fold: Fold, splits: Splits, spec: MilSpec
) -> Callable[[Epoch], None] | None:
    if progress is None:
        return None
    return lambda epoch: progress(Progress(fold.number, len(splits.folds), epoch, spec.epochs))


def _tested(rows: pd.DataFrame, fold: Fold, values: NDArray[np.float64], classes: tuple[str, ...]) -> pd.DataFrame:
    """The predictions of one fold's test slides, with the index of their rows in the table."""
    table = prediction_table(list(rows["slide_id"]), values, classes).set_index(rows.index)
    table = table.assign(patient_id=rows["patient_id"], fold=fold.number, label=rows["label"])
    return table[["slide_id", "patient_id", "fold", "label", "predicted", *(f"p_{name}" for name in classes)]]


def _metrics(predictions: pd.DataFrame, splits: Splits, fitted: list[Fitted], spec: MilSpec) -> dict[str, Any]:
    facts = {
        fold.number: {
            "best_epoch": model.best_epoch,
            "epochs": len(model.history),
            "n_train": len(fold.train),
            "n_val": len(fold.val),
        }
        for fold, model in zip(splits.folds, fitted, strict=True)
    }
    return classification_metrics(
        predictions,
        splits.classes,
        resamples=spec.bootstrap,
        seed=sub_seed(spec.seed, len(splits.folds)),
        folds=facts,
        warnings=splits.warnings,
        of="test predictions" if splits.fixed else "pooled out-of-fold predictions",
    )
