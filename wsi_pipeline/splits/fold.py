"""One division of a table of slides: who trains, who stops the training and chooses, who tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RowIndices = NDArray[np.int64]

SHARED = "shared_folds"
"""Column of a table of slides with the fold of each row, one number per repeat, where several targets share them."""

PARTS = ("train", "val", "test")
"""The sides of a fold, and the words allowed in the column `split`."""


class SplitOptions(Protocol):
    """How a table is divided: the options of `train-mil` that concern folds, as `MilSpec` has them."""

    @property
    def folds(self) -> int:
        """Number of folds."""

    @property
    def repeats(self) -> int:
        """How often everyone is tested, each time in new folds."""

    @property
    def seed(self) -> int:
        """Seed of the folds."""

    @property
    def val_fraction(self) -> float:
        """Fraction of the training patients that is set aside for early stopping."""

    @property
    def committee(self) -> int:
        """Models per fold; each sets aside a part of its own."""

    @property
    def site_folds(self) -> bool:
        """Whether whole sites are held out."""

    @property
    def allow_few(self) -> bool:
        """Whether a class may have fewer patients than there are folds."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Row positions (ascending) that train, choose when to stop and what to keep, and test.

    number   within its repeat, from 0
    repeat   from 0
    inner    where a committee of models shares the fold: for each the rows of `train` that train it, and those that
             stop it, none where nobody is set aside; `val` is empty then
    """

    number: int
    train: RowIndices
    val: RowIndices
    test: RowIndices
    repeat: int = 0
    inner: tuple[tuple[RowIndices, RowIndices], ...] = ()

    def parts(self) -> Iterator[tuple[str, RowIndices]]:
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
