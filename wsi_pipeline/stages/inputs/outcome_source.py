"""The outcomes that slide-level models predict: the columns of each task, and where the values come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsi_pipeline.errors import MilError

OUTCOMES = {
    "classification": ("label",),
    "ordinal": ("label",),
    "regression": ("label",),
    "survival": ("time", "event"),
}
"""Task -> the columns of the table that hold the outcome."""


@dataclass(frozen=True)
class OutcomeSource:
    """Where the outcomes of slides and their patients come from; part of metrics.json.

    column     column of the labels, or the survival endpoint (`os`); "" for the columns of OUTCOMES
    clinical   file, matching and columns of the clinical table; empty for outcomes of the run's own table
    patients   where the patients come from, see `Cohort.patients_stated`
    division   name of the folds shared with other targets; "" if not shared
    """

    column: str = ""
    clinical: Mapping[str, Any] = field(default_factory=dict)
    patients: str = "stated"
    division: str = ""

    def to_json(self, task: str) -> dict[str, Any]:
        """The non-empty keys of metrics.json, without `patients`."""
        key = "endpoint" if task == "survival" else "label_column"
        found = {key: self.column, "clinical": dict(self.clinical), "division": self.division}
        return {name: value for name, value in found.items() if value}

    def no_outcome(self, task: str) -> MilError:
        """The error to raise if no slide has an outcome."""
        if not self.clinical:
            name = " and ".join(f"`{column}`" for column in OUTCOMES[task])
            where = "the CSV, then run: wsi-pipeline tile"
        else:
            name = f"survival {self.column.upper()}".strip() if task == "survival" else self.column
            where = "the clinical table"
        return MilError(f"no slide with features has {name}", todo=f"Add {name} to {where}")


def check_patients(doubts: Sequence[tuple[str, str]]) -> None:
    """Raise MilError for the first doubt about the slides' patients, saying what to do about it."""
    for what, todo in doubts:
        raise MilError(f"{what}. Slides of one patient on both sides of a fold invalidate every metric", todo=todo)
