"""What a task is: the outcome it needs, the loss that trains it, the columns it predicts, its metrics.

A task knows tables and arrays, not models: training sees its `objective`, everything else the columns it makes. Only
`objective` imports torch, so that metrics and comparisons of finished trainings do without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.tables.cells import number
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MetricError, MilError
from wsi_pipeline.statistics.estimates import none_if_nan
from wsi_pipeline.wording import listed

if TYPE_CHECKING:
    from wsi_pipeline.mil.training.objectives import Objective

Json = dict[str, Any]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

NAMED = 5
"""Most slides that a message names; the rest are counted."""


class Evaluation(Protocol):
    """Outcomes and predictions of n rows as arrays, read and checked once; all metrics are computed from it."""

    def take(self, rows: NDArray[np.bool_]) -> Self:
        """The rows of a mask (n,): one repeat, or one fold."""

    def values(self) -> dict[str, float | None]:
        """Every metric; None if undefined."""

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """Every metric (R,) with row j counted weights[r, j] times, weights (R, n); NaN if undefined."""

    def selection(self) -> float:
        """The value that model selection maximises on validation rows; NaN if undefined."""

    def permuted(self) -> Callable[[Codes], float]:
        """`selection` as a function of a permutation (n,): row i gets the outcome of row order[i]. Fast to repeat."""

    def chance(self) -> dict[str, float]:
        """The metrics of a guess that ignores the slide, from the outcomes alone."""

    def details(self) -> Json:
        """Facts for metrics.json that are not single numbers, such as a confusion matrix."""


class Task(Protocol):
    """One kind of outcome; a frozen dataclass with the parameters learned from a table (classes, mean, intervals).

    A *table* has one row per bag: slide_id, patient_id, and the outcome columns. *Predictions* are a table with the
    columns of `outcomes` beside its own, and `fold` (`repeat`) if several models made them.
    """

    @property
    def name(self) -> str:
        """classification, ordinal, regression or survival."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or grades that predictions choose from; () where a number is predicted."""

    @property
    def n_outputs(self) -> int:
        """Outputs of a model, C."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The outcome columns a table must have."""

    @property
    def headline(self) -> tuple[str, ...]:
        """The metrics to show first."""

    @property
    def relative(self) -> bool:
        """Whether outputs of two models differ by an arbitrary constant (the risk of a Cox model)."""

    def to_json(self) -> Json:
        """The task as a JSON object, which `task_from_json` reads."""

    def learned(self, table: pd.DataFrame) -> Self:
        """The task for one fold, with parameters learned from `table`, its training rows.

        Regression learns the mean and standard deviation of its target; other tasks are returned as they are.
        """

    def objective(self, table: pd.DataFrame, spec: MilSpec) -> Objective:
        """The loss over the rows of `table`: row i is bag i. Raises MilError naming rows without a usable outcome."""

    def strata(self, table: pd.DataFrame) -> Codes:
        """Group (n,) of each row by its outcome, 0, 1, ..., which folds should hold in equal shares."""

    def outcomes(self, outputs: Floats) -> pd.DataFrame:
        """Prediction columns from the outputs (B, C) of one model."""

    def evaluate(self, predictions: pd.DataFrame) -> Evaluation:
        """Predictions as arrays, to be measured. Raises MetricError if there are none, MilError for unusable values."""


def column_of(table: pd.DataFrame, column: str) -> pd.Series[Any]:
    """A column of a table, complete. Raises MilError naming the slides without a value."""
    if column not in table:
        raise MilError(
            f"the slides have no column `{column}`", todo=f"Add it to the CSV of slides (manifests/README.md): {column}"
        )
    missing = table[column].isna() | (table[column].astype(str).str.strip() == "")
    if missing.any():
        raise MilError(f"{column} is missing for {listed(table.loc[missing, 'slide_id'])}")
    return table[column]


def codes_of(table: pd.DataFrame, classes: tuple[str, ...], column: str = "label") -> Codes:
    """A column of class names as positions in `classes`, (n,). Raises MilError naming the first unknown class."""
    names = column_of(table, column).astype(str)
    codes = names.map({name: code for code, name in enumerate(classes)})
    if codes.isna().any():
        strange = table[codes.isna()].iloc[0]
        raise MilError(
            f"{column} must be one of {', '.join(classes)}, got {strange[column]!r}", slide=str(strange["slide_id"])
        )
    return np.array(codes, dtype=np.int64)


def numbers_of(table: pd.DataFrame, column: str) -> Floats:
    """A column as finite numbers (n,). Raises MilError naming the first slide whose value is not a number."""
    found = column_of(table, column)
    if pd.api.types.is_numeric_dtype(found):
        values = np.array(found, dtype=np.float64)  # a copy, because torch needs writable memory
    else:
        values = np.array([_number(cell) for cell in found], dtype=np.float64)
    wrong = ~np.isfinite(values)
    if wrong.any():
        slide, cell = table["slide_id"][wrong].iloc[0], found[wrong].iloc[0]
        raise MilError(f"{column} must be a number, got {cell!r}", slide=str(slide))
    return values


def _number(cell: object) -> float:
    """A cell as the manifest reads numbers; NaN if it is not a number."""
    try:
        return number(str(cell))
    except ValueError:
        return float("nan")


def some(predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions. Raises MetricError if there are none."""
    if len(predictions) == 0:
        raise MetricError("there are no predictions to measure")
    return predictions


def values_of(evaluation: Evaluation, n: int) -> dict[str, float | None]:
    """The metrics with each of the n rows counted once, None for NaN."""
    return {name: none_if_nan(values[0]) for name, values in evaluation.resampled(np.ones((1, n))).items()}


def nan_if_none(value: float | None) -> float:
    """The value, or NaN if undefined."""
    return float("nan") if value is None else value


def quantile_groups(values: Floats, n_groups: int) -> Codes:
    """Group (n,) of each value by its rank: up to `n_groups` of about equal size, equal values together."""
    if len(values) == 0:
        return np.zeros(0, np.int64)
    edges = np.unique(np.quantile(values, np.arange(1, n_groups) / n_groups, method="inverted_cdf"))
    codes = np.searchsorted(edges, values, side="left")
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)
