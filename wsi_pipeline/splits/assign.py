"""Make folds over patients: training, early-stopping and test parts, stratified, checked for leaks.

Works on a table with the columns slide_id, patient_id, an outcome and, optionally, split, site and content (a digest
of the file). A patient is always on one side only; so are identical files under two names and, with `site_folds`,
whole sites (Howard et al., Nature Communications 12:4423, 2021). Rows are given by their position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.table_words import alike, in_order, patient_key, split_word
from wsi_pipeline.errors import SplitError
from wsi_pipeline.splits.fold import PARTS, SHARED, Fold, RowIndices, SplitOptions, Splits
from wsi_pipeline.splits.groups import groups_of, identical_files
from wsi_pipeline.splits.leaks import Leak, check_no_leaks, find_leaks
from wsi_pipeline.splits.refusals import (
    patients_per_stratum,
    refuse_few,
    refuse_few_sites,
    refuse_one_class_training,
    refuse_unlearnable,
)
from wsi_pipeline.splits.sites import site_association, site_warnings
from wsi_pipeline.splits.stratify import hold_out_per_stratum, stratified_folds
from wsi_pipeline.wording import counted, listed

__all__ = [
    "Fold", "Leak", "RowIndices", "Splits", "Strata", "check_no_leaks", "checked_table", "class_strata", "find_leaks",
    "make_splits", "patients_per_class",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Strata:
    """What is spread evenly over the folds: a code for each row (n,), and the names of the strata.

    classes   whether strata are classes: then a fold without one of them gives a warning, and a class with fewer
              patients than folds is refused
    """

    codes: RowIndices
    names: tuple[str, ...]
    classes: bool = True


def class_strata(table: pd.DataFrame) -> Strata:
    """The classes of the column label as strata."""
    labels = table["label"].astype(str).str.strip()
    names = in_order(labels)
    return Strata(np.array(labels.map({name: code for code, name in enumerate(names)}), dtype=np.int64), names)


def make_splits(table: pd.DataFrame, spec: SplitOptions, strata: Strata | None = None) -> Splits:
    """Divide a table of slides by `spec`: `repeats` times `folds` folds, or the one fold of a filled column `split`.

    strata   of each row of the table; None: the classes of its column label

    A column SHARED (`shared_folds.share_folds`) gives the outer folds. Otherwise they are scikit-learn's
    StratifiedGroupKFold over patients; folds that hold every class are preferred. Unless a validation part is given,
    part of the training patients is set aside for early stopping and model selection.

    Raises SplitError if no honest division exists: missing or repeated values, a single class, labels that are all
    different, fewer than two patients or sites, a class with fewer patients than folds (unless `allow_few`), a patient,
    file or site on both sides.
    """
    table = checked_table(table, ("label",) if strata is None else ())
    strata = class_strata(table) if strata is None else strata
    fixed = "split" in table and bool((_split_values(table) != "").any())
    refuse_unlearnable(table, strata.codes, strata.names, classes=strata.classes)
    groups = _groups(table, spec)
    outer, warnings = _fixed_folds(table, spec) if fixed else _outer_folds(table, groups, strata, spec)
    folds = tuple(_with_validation(table, fold, groups, strata, spec) for fold in outer)
    for fold in folds:
        check_no_leaks(table, replace(fold, val=fold.val[:0]), sites=spec.site_folds)
        check_no_leaks(table, fold)
        warnings += _part_warnings(fold, strata, spec, 1 if fixed else spec.repeats)
    if strata.classes and not spec.allow_few:
        refuse_one_class_training(folds, strata.codes, strata.names)
    association = site_association(table, strata.codes, strata.names, spec.seed)
    warnings += _spellings(table, strata) + _copies(table) + site_warnings(association, whole_sites=spec.site_folds)
    return Splits(folds, strata.names, fixed, tuple(warnings))


def checked_table(table: pd.DataFrame, outcomes: Sequence[str] = ("label",)) -> pd.DataFrame:
    """The table with slide_id, patient_id and the outcomes as text and rows counted from 0.

    Raises SplitError unless they are there and filled in, and slide_id is unique.
    """
    names = ["slide_id", "patient_id", *outcomes]
    for column in names:
        if column not in table:
            raise SplitError(f"the table of slides has no column {column}")
        missing = table[column].isna() | (table[column].astype(str).str.strip() == "")
        if missing.any():
            where = [f"row {row}" for row in np.flatnonzero(missing)] if column == "slide_id" else None
            raise SplitError(f"{column} is missing for {listed(where or list(table.loc[missing, 'slide_id']))}")
    table = table.reset_index(drop=True).astype(dict.fromkeys(names, str))
    repeated = table.loc[table["slide_id"].duplicated(), "slide_id"].unique()
    if len(repeated):
        raise SplitError(f"slide_id must be unique, more than one row has {listed(list(repeated))}")
    return table


def patients_per_class(table: pd.DataFrame) -> dict[str, int]:
    """Number of patients with at least one slide of each class, most first."""
    strata = class_strata(table)
    return patients_per_stratum(table, strata.codes, strata.names)


def _groups(table: pd.DataFrame, spec: SplitOptions) -> RowIndices:
    if spec.site_folds:
        refuse_few_sites(table)
    return groups_of(table, sites=spec.site_folds)


def _outer_folds(
    table: pd.DataFrame, groups: RowIndices, strata: Strata, spec: SplitOptions
) -> tuple[list[Fold], list[str]]:
    warnings = refuse_few(table, strata.codes, strata.names, spec, classes=strata.classes)
    there = len(np.unique(groups))
    n_folds = min(spec.folds, there)
    if n_folds < 2:
        raise SplitError(
            "all slides belong together through patients, identical files or sites: none can be held out",
            todo="Check whether the columns patient_id and site have the same value in all rows.",
        )
    if n_folds < spec.folds:
        what = "sites" if spec.site_folds else "patients"
        warnings.append(f"{spec.folds} folds were requested, but {there} {what} allow only {n_folds}.")
    everyone, nobody = np.arange(len(table)), np.empty(0, np.int64)
    folds = []
    for repeat in range(spec.repeats):
        if SHARED in table:
            given = np.array([numbers[repeat] for numbers in table[SHARED]], np.int64)
            tests = [np.flatnonzero(given == number) for number in np.unique(given)]
        else:
            tests = stratified_folds(strata.codes, groups, n_folds, seed_of(spec.seed, repeat))
        folds += [Fold(k, np.setdiff1d(everyone, test), nobody, test, repeat) for k, test in enumerate(tests)]
    return folds, warnings


def seed_of(seed: int, repeat: int) -> int:
    """The seed of a repeat's folds; that of the first is the seed itself."""
    return seed if repeat == 0 else int(np.random.SeedSequence([seed, 1, repeat]).generate_state(1)[0])


def _split_values(table: pd.DataFrame) -> NDArray[np.str_]:
    words = ("" if pd.isna(value) else str(value).strip().lower() for value in table["split"])
    return np.array([split_word(word) or word for word in words], dtype=np.str_)


def _fixed_folds(table: pd.DataFrame, spec: SplitOptions) -> tuple[list[Fold], list[str]]:
    values = _split_values(table)
    wrong = ~np.isin(values, PARTS)
    if wrong.any():
        slides = listed(list(table.loc[wrong, "slide_id"]))
        raise SplitError(
            f"split must be train, val or test for every slide, or empty for all; it is not for {slides}",
            todo="Fill in the column split for every labelled slide, or remove it to have folds made.",
        )
    rows = {part: np.flatnonzero(values == part) for part in PARTS}
    for part in ("train", "test"):
        if len(rows[part]) == 0:
            raise SplitError(
                f"the column split has no {part} slides", todo=f"Mark slides as {part}, or remove the column split."
            )
    warnings = [] if spec.repeats == 1 else ["The column split gives a single fold: --repeats has no effect."]
    fold = Fold(0, rows["train"], rows["val"], rows["test"])
    check_no_leaks(table, fold)
    return [fold], warnings


def _with_validation(table: pd.DataFrame, fold: Fold, groups: RowIndices, strata: Strata, spec: SplitOptions) -> Fold:
    """The fold with part of its training patients set aside for early stopping, unless it has a validation part.

    With `site_folds` whole sites are set aside if every stratum stays on both sides; otherwise patients.
    """
    if len(fold.val):
        return fold
    if not spec.val_fraction:
        alone = spec.committee == 1
        return fold if alone else replace(fold, inner=((fold.train, fold.val),) * spec.committee)
    inner = _inner(fold, groups, strata, spec)
    if inner:
        return replace(fold, inner=inner)
    path = [spec.seed, fold.number] + ([fold.repeat] if fold.repeat else [])
    codes = strata.codes[fold.train]
    tried = [groups, groups_of(table, sites=False)] if spec.site_folds else [groups]
    for candidate in tried:
        chosen = hold_out_per_stratum(codes, candidate[fold.train], spec.val_fraction, np.random.SeedSequence(path))
        if set(codes[chosen]) == set(codes[~chosen]):
            break
    return replace(fold, train=fold.train[~chosen], val=fold.train[chosen])


def _inner(
    fold: Fold, groups: RowIndices, strata: Strata, spec: SplitOptions
) -> tuple[tuple[RowIndices, RowIndices], ...]:
    """Training and early-stopping rows per committee member, limited by the rarest stratum; none for fewer than two."""
    codes, own = strata.codes[fold.train], groups[fold.train]
    fewest = min(len(np.unique(own[codes == code])) for code in np.unique(codes))
    n_inner = min(spec.committee, fewest)
    if n_inner < 2:
        return ()
    seed = int(np.random.SeedSequence([spec.seed, 2, fold.repeat, fold.number]).generate_state(1)[0])
    parts = [fold.train[rows] for rows in stratified_folds(codes, own, n_inner, seed)]
    return tuple((np.setdiff1d(fold.train, part), part) for part in parts)


def _part_warnings(fold: Fold, strata: Strata, spec: SplitOptions, repeats: int) -> list[str]:
    found = []
    name = fold.name(repeats)
    if max(len(fold.inner), 1) < spec.committee:
        allowed = f"its slides allow only {len(fold.inner) or 'one model'}"
        found.append(f"{name.capitalize()}: a committee of {spec.committee} was requested, but {allowed}.")
    for part, rows in fold.parts():
        missing = [stratum for code, stratum in enumerate(strata.names) if not (strata.codes[rows] == code).any()]
        if part == "val" and (fold.inner or not spec.val_fraction):
            continue
        if part == "val" and len(rows) == 0:
            found.append(f"{name.capitalize()}: too few patients for a validation part; all epochs are run.")
        elif missing and strata.classes:
            words = {"train": "training", "val": "early-stopping", "test": "test"}[part]
            found.append(f"{name.capitalize()}: no slide of class {' or '.join(missing)} among its {words} slides.")
    return found


def _spellings(table: pd.DataFrame, strata: Strata) -> list[str]:
    """Sentences about classes and patients that differ only in spelling."""
    classes = alike(strata.names) if strata.classes else []
    patients = alike(dict.fromkeys(table["patient_id"].astype(str)), patient_key)
    found = [("Classes", names, len(names), "--fold-labels merges them") for names in classes]
    found += [("Patients", names, len(names), "use one spelling in all rows") for names in patients]
    return [
        f"{what} {listed([repr(name) for name in names])} differ only in spelling and count as {count}: {todo}."
        for what, names, count, todo in found
    ]


def _copies(table: pd.DataFrame) -> list[str]:
    """Sentences about identical files under several names."""
    found = identical_files(table)
    if not found:
        return []
    named = []
    for rows in found:
        patients = rows["patient_id"].unique()
        whose = f"patient {patients[0]}" if len(patients) == 1 else f"patients {listed(list(patients))}"
        named.append(f"{' = '.join(rows['slide_id'].astype(str))} ({whose})")
    return [
        f"{counted(len(found), 'file')} under several names, kept on one side but counted each time: "
        f"{listed(named)}. Remove the copies, and check patient_id."
    ]
