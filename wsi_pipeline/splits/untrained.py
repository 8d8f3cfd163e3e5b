"""Slides of a fixed split whose class has no training slide, so that no model can predict it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.table_words import in_order, split_word
from wsi_pipeline.wording import agreed, counted, listed


def untrained_rows(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Mask (n,) of val and test rows (column `split`) whose class has no training row."""
    sides = sides_of(table)
    trains = sides == "train"
    if not trains.any():
        return np.zeros(len(table), bool)
    labels = table["label"].astype(str)
    return np.isin(sides, ("val", "test")) & ~labels.isin(set(labels[trains])).to_numpy()


def sides_of(table: pd.DataFrame) -> NDArray[np.str_]:
    """`train`, `val`, `test` or "" for each row."""
    if "split" not in table:
        return np.full(len(table), "", dtype=np.str_)
    return np.array([("" if pd.isna(word) else split_word(str(word))) or "" for word in table["split"]], dtype=np.str_)


def untrained_json(others: pd.DataFrame) -> dict[str, Any]:
    """The key `untrained` of metrics.json: class -> slides and patients, none of which is in any metric."""
    found = {}
    for name, rows in _by_class(others):
        found[name] = {"n_slides": len(rows), "n_patients": int(rows["patient_id"].nunique())}
    return found


def untrained_warnings(others: pd.DataFrame) -> list[str]:
    """A sentence per class."""
    return [
        f"Class {name} has no training slides, so the model cannot predict it: {counted(len(rows), 'slide')} "
        f"({listed(list(rows['slide_id']))}) {agreed(len(rows), 'is')} excluded from all metrics."
        for name, rows in _by_class(others)
    ]


def with_others(assignment: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """The assignment, with the slides of these classes in the part that the table gives them."""
    more = others[["slide_id", "patient_id"]].assign(repeat=0, fold=0, part=sides_of(others))
    return pd.concat([assignment, more[list(assignment.columns)]], ignore_index=True)


def _by_class(others: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    labels = others["label"].astype(str)
    return [(name, others[labels == name]) for name in in_order(labels)]
