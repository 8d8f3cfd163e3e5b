"""One division of a table of slides: who trains, who stops the training and chooses, who tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Rows = NDArray[np.int64]

PARTS = ("train", "val", "test")
"""The sides of a fold, and the words allowed in the column `split`."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Row positions (ascending) that train, choose when to stop and what to keep, and test.

    number   within its repeat, from 0
    repeat   from 0
    inner    where a committee of models shares the fold: for each the rows of `train` that train it, and those that
             stop it, none where nobody is set aside; `val` is empty then
    """

    number: int
    train: Rows
    val: Rows
    test: Rows
    repeat: int = 0
    inner: tuple[tuple[Rows, Rows], ...] = ()

    def parts(self) -> Iterator[tuple[str, Rows]]:
        """The three sides with their names."""
        return ((name, getattr(self, name)) for name in PARTS)

    def name(self, repeats: int = 1) -> str:
        """`fold 2`, or `repeat 1, fold 2` where there are several."""
        return f"fold {self.number}" if repeats == 1 else f"repeat {self.repeat}, fold {self.number}"


@dataclass(frozen=True, eq=False)
class Splits:
    """All folds of a validation. `fixed`: they come from the column `split`; `warnings`: sentences for people."""

    folds: tuple[Fold, ...]
    classes: tuple[str, ...]
    fixed: bool
    warnings: tuple[str, ...]

    @property
    def repeats(self) -> int:
        """How often everyone is tested."""
        return 1 + max(fold.repeat for fold in self.folds)

    def assignment(self, table: pd.DataFrame) -> pd.DataFrame:
        """Which slide was on which side of which fold: columns repeat, fold, part, slide_id, patient_id."""
        pieces = [
            table.iloc[rows][["slide_id", "patient_id"]].assign(repeat=fold.repeat, fold=fold.number, part=part)
            for fold in self.folds
            for part, rows in fold.parts()
        ]
        return pd.concat(pieces, ignore_index=True)[["repeat", "fold", "part", "slide_id", "patient_id"]]
