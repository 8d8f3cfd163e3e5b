"""One division of a table of slides into training, early-stopping and test parts."""

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
        """Repetitions of the cross-validation, with new folds each time."""

    @property
    def seed(self) -> int:
        """Seed of the folds."""

    @property
    def val_fraction(self) -> float:
        """Fraction of the training patients that is set aside for early stopping."""

    @property
    def committee(self) -> int:
        """Models per fold, each with its own early-stopping part."""

    @property
    def site_folds(self) -> bool:
        """Whether whole sites are held out."""

    @property
    def allow_few(self) -> bool:
        """Whether a class may have fewer patients than there are folds."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Row positions (ascending) of the training part, the early-stopping part (`val`) and the test part.

    number   within its repeat, from 0
    repeat   from 0
    inner    for each committee member, the rows of `train` that train it and those for its early stopping (may be
             empty); `val` is then empty. Empty without a committee
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
    """All folds of a validation. `fixed`: from the column `split`; `warnings`: sentences for the user."""

    folds: tuple[Fold, ...]
    classes: tuple[str, ...]
    fixed: bool
    warnings: tuple[str, ...]

    @property
    def repeats(self) -> int:
        """Repetitions of the cross-validation."""
        return 1 + max(fold.repeat for fold in self.folds)

    def assignment(self, table: pd.DataFrame) -> pd.DataFrame:
        """The part of each slide in each fold: columns repeat, fold, part, slide_id, patient_id."""
        pieces = [
            table.iloc[rows][["slide_id", "patient_id"]].assign(repeat=fold.repeat, fold=fold.number, part=part)
            for fold in self.folds
            for part, rows in fold.parts()
        ]
        return pd.concat(pieces, ignore_index=True)[["repeat", "fold", "part", "slide_id", "patient_id"]]
