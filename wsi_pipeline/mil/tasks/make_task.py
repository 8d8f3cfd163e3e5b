"""Make a task: from a table and the settings, or from a model's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.classification import ClassificationTask, make_classification
from wsi_pipeline.mil.tasks.ordinal import OrdinalTask, make_ordinal, median_grade
from wsi_pipeline.mil.tasks.regression import RegressionTask, make_regression
from wsi_pipeline.mil.tasks.survival import CoxTask, DiscreteTask, make_survival
from wsi_pipeline.mil.tasks.task import Codes, Floats, Task


def make_task(table: pd.DataFrame, spec: MilSpec) -> Task:
    """The task `spec.task` over the rows of a table (slide_id, patient_id and the outcome columns).

    Classes, mean and standard deviation, or time intervals are learned from these rows. Raises MilError if that is
    impossible: only one class, say, or an outcome of the wrong kind.
    """
    if spec.positive is not None and spec.task != "classification":
        raise MilError(f"{spec.task} has no positive class", todo="Leave out --positive")
    if spec.grades is not None and spec.task != "ordinal":
        raise MilError(f"{spec.task} has no grades", todo="Leave out --grades, or use --task ordinal")
    if spec.task == "regression":
        return make_regression(table)
    if spec.task == "ordinal":
        return make_ordinal(table, spec.grades)
    if spec.task == "survival":
        return make_survival(table, spec)
    return make_classification(table, spec.positive)


def choose_class(task: Task, probabilities: Floats) -> Codes:
    """The predicted class (B,) from probabilities (B, C): the most likely one; for grades, the median."""
    codes: Codes = median_grade(probabilities) if isinstance(task, OrdinalTask) else probabilities.argmax(1)
    return codes


def task_from_json(value: Any) -> Task:
    """The task that `to_json` wrote. Raises MilError for anything else, since the file may come from anyone."""
    if not isinstance(value, Mapping):
        raise MilError(f"a task must be a JSON object, got {type(value).__name__}")
    given = dict(value)
    kind = (given.pop("name", None), given.pop("loss", None))
    if kind == ("classification", None) and set(given) == {"classes"}:
        return ClassificationTask(_list(given["classes"], str))
    if kind == ("ordinal", None) and set(given) == {"classes"}:
        return OrdinalTask(_list(given["classes"], str))
    if kind == ("regression", None) and set(given) == {"mean", "sd"}:
        return RegressionTask(*_list([given["mean"], given["sd"]], float))
    if kind == ("survival", "discrete") and set(given) == {"edges"}:
        return DiscreteTask(_list(given["edges"], float))
    if kind == ("survival", "cox") and not given:
        return CoxTask()
    raise MilError(f"unknown task: {str(dict(value))[:200]}")


def _list(values: Any, kind: type[str] | type[float]) -> tuple[Any, ...]:
    """A JSON list of text or of numbers as a tuple."""
    kinds = (str,) if kind is str else (int, float)
    if not isinstance(values, list) or not all(type(value) in kinds for value in values):
        raise MilError(f"a task must hold a list of {kind.__name__} values, got {str(values)[:200]}")
    try:
        return tuple(kind(value) for value in values)
    except OverflowError:
        raise MilError("numbers of a task must fit into a float") from None
