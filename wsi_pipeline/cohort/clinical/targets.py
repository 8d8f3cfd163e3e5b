"""Prediction targets as users write them: `KRAS`, `survival`, `survival:PFS`, `regression:TMB`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SURVIVAL = "survival"


@dataclass(frozen=True)
class Target:
    """One target: its task and its label column; for survival the endpoint (`OS`), empty if it is open.

    written   as the user wrote it
    """

    written: str
    task: str
    column: str

    @property
    def shown(self) -> str:
        """Its name in tables and folders: the column, or `survival` with its endpoint."""
        return " ".join(part for part in (SURVIVAL, self.column) if part) if self.task == SURVIVAL else self.column


def parse_target(written: str, task: str, tasks: tuple[str, ...], is_column: Callable[[str], bool]) -> Target:
    """Read `NAME` or `TASK:NAME`; if a column has exactly this name, it is that column.

    task        default task, for targets that do not state one
    tasks       all known tasks
    is_column   whether there is a column of that name
    """
    text = written.strip()
    if is_column(text) and task != SURVIVAL:
        return Target(written, task, text)
    head, mark, rest = text.partition(":")
    if mark and head.strip().lower() in tasks:
        return Target(written, head.strip().lower(), rest.strip())
    if text.lower() == SURVIVAL:
        return Target(written, SURVIVAL, "")
    return Target(written, task, text)
