"""Who trains, who stops the training, who tests: folds over patients, stratified by label, checked for leaks.

Pure on a table with the columns slide_id, patient_id, label and, optionally, split. A patient is on one side
only, always. Rows are named by their position in the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.stratify import deal_folds, hold_out
from wsi_pipeline.errors import MilError
from wsi_pipeline.specs import MilSpec

Rows = NDArray[np.int64]

PARTS = ("train", "val", "test")
"""The sides of a fold, and the words allowed in the column `split`."""

_NAMED = 5
"""How many patients or slides a message names before it says how many more."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One division of a table: row positions (ascending) that train, choose when to stop, and test."""

    number: int
    train: Rows
    val: Rows
    test: Rows

    def parts(self) -> Iterator[tuple[str, Rows]]:
        """The three sides with their names."""
        return ((name, getattr(self, name)) for name in PARTS)


@dataclass(frozen=True, eq=False)
class Splits:
    """All folds of a validation. `fixed`: they come from the column `split`; `warnings`: sentences for people."""

    folds: tuple[Fold, ...]
    classes: tuple[str, ...]
    fixed: bool
    warnings: tuple[str, ...]

    def assignment(self, table: pd.DataFrame) -> pd.DataFrame:
        """Which slide was on which side of which fold: columns fold, part, slide_id, patient_id."""
        pieces = [
            table.iloc[rows][["slide_id", "patient_id"]].assign(fold=fold.number, part=part)
            for fold in self.folds
            for part, rows in fold.parts()
        ]
        return pd.concat(pieces, ignore_index=True)[["fold", "part", "slide_id", "patient_id"]]


@dataclass(frozen=True)
class Leak:
    """A patient on more than one side of a fold: side -> slide_ids."""

    patient_id: str
    sides: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        sides = "; ".join(f"{side}: {_listed(slides)}" for side, slides in self.sides.items())
        return f"patient {self.patient_id} ({sides})"


def make_splits(table: pd.DataFrame, spec: MilSpec) -> Splits:
    """Divide a table of labelled slides as `spec` asks: `folds` outer folds, or one where `split` is filled in.

    Outer folds are scikit-learn's StratifiedGroupKFold over patients; folds that hold every class are
    preferred. Where no validation part is given, part of the training patients is set aside for early stopping.

    Raises MilError where this cannot be done honestly: missing or repeated values, a single class, labels that
    are all different, fewer than two patients, a class with fewer patients than folds (unless `allow_few`),
    a patient on both sides.
    """
    table = checked_table(table)
    classes = tuple(sorted(table["label"].unique()))
    fixed = "split" in table and bool((_split_values(table) != "").any())
    _refuse_unlearnable(table, classes)
    outer, warnings = ([_fixed_fold(table)], list[str]()) if fixed else _outer_folds(table, classes, spec)
    folds = tuple(_with_validation(table, fold, spec) for fold in outer)
    for fold in folds:
        check_no_leaks(table, fold)
        warnings += _class_warnings(table, fold, classes)
    _refuse_one_class_training(table, folds, spec)
    return Splits(folds, classes, fixed, tuple(warnings))


def find_leaks(table: pd.DataFrame, fold: Fold) -> tuple[Leak, ...]:
    """Patients with slides on more than one side of a fold, in the order of their names."""
    sides: dict[str, dict[str, tuple[str, ...]]] = {}
    for part, rows in fold.parts():
        found = table.iloc[rows][["slide_id", "patient_id"]].astype(str)
        for patient, slides in found.groupby("patient_id")["slide_id"]:
            sides.setdefault(str(patient), {})[part] = tuple(slides)
    return tuple(Leak(patient, parts) for patient, parts in sorted(sides.items()) if len(parts) > 1)


def check_no_leaks(table: pd.DataFrame, fold: Fold) -> None:
    """Raise MilError naming the patients, and their slides on each side, if a fold divides a patient."""
    leaks = find_leaks(table, fold)
    if leaks:
        raise MilError(
            f"fold {fold.number} divides {_count(len(leaks), 'patient')}: {_listed([str(leak) for leak in leaks])}",
            todo="All slides of a patient must have the same value in the column split.",
        )


def checked_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table with slide_id, patient_id and label as text and rows counted from 0.

    Raises MilError unless they are there and filled in, and slide_id is unique.
    """
    names = ["slide_id", "patient_id", "label"]
    for column in names:
        if column not in table:
            raise MilError(f"the table of slides has no column {column}")
        missing = table[column].isna() | (table[column].astype(str).str.strip() == "")
        if missing.any():
            where = [f"row {row}" for row in np.flatnonzero(missing)] if column == "slide_id" else None
            raise MilError(f"{column} is missing for {_listed(where or list(table.loc[missing, 'slide_id']))}")
    table = table.reset_index(drop=True).astype(dict.fromkeys(names, str))
    repeated = table.loc[table["slide_id"].duplicated(), "slide_id"].unique()
    if len(repeated):
        raise MilError(f"slide_id must be unique, more than one row has {_listed(list(repeated))}")
    return table


def patients_per_class(table: pd.DataFrame) -> dict[str, int]:
    """Number of patients with at least one slide of each class, most first."""
    counts = table.assign(label=table["label"].astype(str)).groupby("label")["patient_id"].nunique()
    return {str(label): int(n) for label, n in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))}


def _refuse_unlearnable(table: pd.DataFrame, classes: tuple[str, ...]) -> None:
    patients = table["patient_id"].nunique()
    if len(table) == 0:
        raise MilError("no labelled slides to train on", todo="Fill in the column label and rerun.")
    if len(classes) == 1:
        raise MilError(
            f"every slide has the label {classes[0]}; training needs at least 2 classes",
            todo="Add slides of another class, or apply a trained model with: wsi-pipeline predict",
        )
    if patients < 2:
        raise MilError(
            f"validation needs at least 2 patients, got {patients} ({table['patient_id'].iloc[0]})",
            todo="Check the column patient_id, add patients, or apply a trained model with: wsi-pipeline predict",
        )
    if len(classes) > 2 and max(patients_per_class(table).values()) == 1:
        raise MilError(
            f"no two patients share a label ({_listed(classes)}): it looks like an identifier or a measurement",
            todo="The column label must hold classes that several patients share.",
        )


def _outer_folds(table: pd.DataFrame, classes: tuple[str, ...], spec: MilSpec) -> tuple[list[Fold], list[str]]:
    few = {name: n for name, n in patients_per_class(table).items() if n < spec.folds}
    if few and not spec.allow_few:
        raise _too_few(few, spec.folds)
    warnings = []
    patients = table["patient_id"].nunique()
    n_folds = min(spec.folds, patients)
    if n_folds < spec.folds:
        warnings.append(f"{spec.folds} folds were asked for; {patients} patients allow {n_folds}.")
    if few:
        listed = ", ".join(f"{name} {n}" for name, n in few.items())
        warnings.append(f"Too few patients for {spec.folds} folds that hold every class ({listed}): read with care.")
    labels = np.searchsorted(np.array(classes), table["label"].to_numpy(dtype=str))
    tests = deal_folds(labels, _codes(table["patient_id"]), n_folds, spec.seed)
    everyone = np.arange(len(table))
    nobody = np.empty(0, np.int64)
    return [Fold(k, np.setdiff1d(everyone, test), nobody, test) for k, test in enumerate(tests)], warnings


def _too_few(few: dict[str, int], folds: int) -> MilError:
    smallest = min(few.values())
    advice = f"--folds {smallest}" if smallest >= 2 else "--folds 2 --allow-few"
    listed = ", ".join(f"{name} has {n}" for name, n in few.items())
    return MilError(
        f"{folds}-fold validation needs at least {folds} patients per class; {listed}.",
        todo=f"Use {advice}, add slides, or apply a trained model with: wsi-pipeline predict",
    )


def _split_values(table: pd.DataFrame) -> NDArray[np.str_]:
    return np.array(["" if pd.isna(value) else str(value).strip().lower() for value in table["split"]], dtype=np.str_)


def _fixed_fold(table: pd.DataFrame) -> Fold:
    values = _split_values(table)
    wrong = ~np.isin(values, PARTS)
    if wrong.any():
        slides = _listed(list(table.loc[wrong, "slide_id"]))
        raise MilError(
            f"split must be train, val or test for every slide, or empty for all; it is not for {slides}",
            todo="Fill in the column split for every labelled slide, or remove it to have folds made.",
        )
    rows = {part: np.flatnonzero(values == part) for part in PARTS}
    for part in ("train", "test"):
        if len(rows[part]) == 0:
            raise MilError(
                f"the column split has no {part} slides", todo=f"Mark slides as {part}, or remove the column split."
            )
    fold = Fold(0, rows["train"], rows["val"], rows["test"])
    check_no_leaks(table, fold)
    return fold


def _with_validation(table: pd.DataFrame, fold: Fold, spec: MilSpec) -> Fold:
    """The fold with part of its training patients set aside for early stopping, unless some are already."""
    if len(fold.val):
        return fold
    training = table.iloc[fold.train]
    seed = np.random.SeedSequence([spec.seed, fold.number])
    chosen = hold_out(_codes(training["label"]), _codes(training["patient_id"]), spec.val_fraction, seed)
    return Fold(fold.number, fold.train[~chosen], fold.train[chosen], fold.test)


def _class_warnings(table: pd.DataFrame, fold: Fold, classes: tuple[str, ...]) -> list[str]:
    labels = table["label"].to_numpy(dtype=str)
    found = []
    for part, rows in fold.parts():
        missing = sorted(set(classes) - set(labels[rows]))
        if part == "val" and len(rows) == 0:
            found.append(f"Fold {fold.number}: too few patients to set any aside; it trains for all its epochs.")
        elif missing:
            words = {"train": "training", "val": "early-stopping", "test": "test"}[part]
            found.append(f"Fold {fold.number}: no slide of class {' or '.join(missing)} among its {words} slides.")
    return found


def _refuse_one_class_training(table: pd.DataFrame, folds: tuple[Fold, ...], spec: MilSpec) -> None:
    for fold in folds:
        found = table["label"].iloc[fold.train].unique()
        if len(found) < 2 and not spec.allow_few:
            raise MilError(
                f"the training slides of fold {fold.number} all have the label {found[0]}",
                todo="Change the column split, add slides, or accept it with --allow-few",
            )


def _codes(values: pd.Series[str]) -> Rows:
    """Whole numbers 0, 1, ... for the values, in the order of their names."""
    return pd.factorize(values, sort=True)[0].astype(np.int64)


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    return ", ".join(map(str, names[:_NAMED])) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
