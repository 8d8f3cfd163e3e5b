"""Refuse tables on which no validation would be meaningful, and say what to do instead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from wsi_pipeline.errors import SplitError
from wsi_pipeline.splits.fold import Fold, RowIndices, SplitOptions
from wsi_pipeline.splits.groups import codes_of
from wsi_pipeline.wording import listed

_APPLY = "apply a trained model with: wsi-pipeline predict"


def patients_per_stratum(table: pd.DataFrame, codes: RowIndices, names: Sequence[str]) -> dict[str, int]:
    """Number of patients with at least one row of each stratum, most first."""
    counts = {name: table["patient_id"][codes == code].nunique() for code, name in enumerate(names)}
    return {name: int(n) for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def refuse_unlearnable(table: pd.DataFrame, codes: RowIndices, names: Sequence[str], *, classes: bool) -> None:
    """Raise SplitError for no slides, one class, fewer than two patients, or labels that are ids."""
    patients = table["patient_id"].nunique()
    if len(table) == 0:
        raise SplitError("no labelled slides to train on", todo="Fill in the column label and rerun.")
    if classes and len(names) == 1:
        raise SplitError(
            f"every slide has the label {names[0]}; training needs at least 2 classes",
            todo=f"Add slides of another class, or {_APPLY}",
        )
    if patients < 2:
        raise SplitError(
            f"validation needs at least 2 patients, got {patients} ({table['patient_id'].iloc[0]})",
            todo=f"Check the column patient_id, add patients, or {_APPLY}",
        )
    if classes and len(names) > 2 and max(patients_per_stratum(table, codes, names).values()) == 1:
        raise SplitError(
            f"no two patients share a label ({listed(names)}): it looks like an identifier or a measurement",
            todo="The column label must hold classes that several patients share.",
        )


def refuse_few(
    table: pd.DataFrame, codes: RowIndices, names: Sequence[str], spec: SplitOptions, *, classes: bool
) -> list[str]:
    """Raise SplitError if a class has fewer patients than folds; with `allow_few`, return a warning instead."""
    if not classes:
        patients = table["patient_id"].nunique()
        if patients < spec.folds and not spec.allow_few:
            raise SplitError(
                f"{spec.folds}-fold validation needs at least {spec.folds} patients, got {patients}.",
                todo=f"Use --folds {patients}, add slides, or {_APPLY}",
            )
        return []
    few = {name: n for name, n in patients_per_stratum(table, codes, names).items() if n < spec.folds}
    if few and not spec.allow_few:
        raise _too_few(few, spec.folds)
    counts = ", ".join(f"{name} {n}" for name, n in few.items())
    return (
        [f"Too few patients for {spec.folds} folds that hold every class ({counts}): interpret with care."]
        if few
        else []
    )


def refuse_few_sites(table: pd.DataFrame) -> None:
    """Raise SplitError unless the column site is filled in and names at least two sites."""
    if "site" not in table or (codes_of(table["site"]) < 0).all():
        raise SplitError(
            "whole sites can be held out only where the column site is filled in",
            todo="Add a column `site` to the CSV and run wsi-pipeline tile again, or leave out --site-folds",
        )
    codes = codes_of(table["site"])
    if (codes < 0).any():
        raise SplitError(f"site is missing for {listed(list(table['slide_id'][codes < 0]))}", todo="Fill it in.")
    if codes.max() == 0:
        raise SplitError(f"all slides are of one site ({table['site'].iloc[0]}): none can be held out")


def refuse_one_class_training(folds: Sequence[Fold], codes: RowIndices, names: Sequence[str]) -> None:
    """Raise SplitError if the training slides of a fold are all of one class."""
    for fold in folds:
        found = np.unique(codes[fold.train])
        if len(found) < 2:
            raise SplitError(
                f"the training slides of fold {fold.number} all have the label {names[found[0]]}",
                todo="Change the column split, add slides, or accept it with --allow-few",
            )


def _too_few(few: dict[str, int], folds: int) -> SplitError:
    smallest = min(few.values())
    advice = f"--folds {smallest}" if smallest >= 2 else "--folds 2 --allow-few"
    counts = ", ".join(f"{name} has {n}" for name, n in few.items())
    return SplitError(
        f"{folds}-fold validation needs at least {folds} patients per class; {counts}.",
        todo=f"Use {advice}, add slides, or {_APPLY}",
    )
