"""Leaks: a patient, a slide, a file under two names, or a site on more than one side of a fold."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from wsi_pipeline.errors import SplitError
from wsi_pipeline.splits.fold import Fold
from wsi_pipeline.splits.groups import CONTENT
from wsi_pipeline.wording import counted, listed

_KINDS = {"slide": "slide_id", "patient": "patient_id", "file": CONTENT, "site": "site"}
"""Kind of leak -> column."""


@dataclass(frozen=True)
class Leak:
    """One thing on more than one side: kind (slide, patient, file, site), its name, side -> slide_ids."""

    kind: str
    name: str
    sides: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        sides = "; ".join(f"{side}: {listed(slides)}" for side, slides in self.sides.items())
        if self.kind == "file":
            return f"the same file under several names ({sides})"
        return f"{self.kind} {self.name} ({sides})"


def find_leaks(table: pd.DataFrame, fold: Fold, *, sites: bool = False) -> tuple[Leak, ...]:
    """Slides, patients, identical files and, with `sites`, sites on more than one side of a fold.

    In this order, each sorted by name. A patient or file is named even if its slides are themselves on both sides.
    """
    kinds = [kind for kind, column in _KINDS.items() if column in table and (kind != "site" or sites)]
    return tuple(leak for kind in kinds for leak in _leaks_of(table, fold, kind))


def check_no_leaks(table: pd.DataFrame, fold: Fold, *, sites: bool = False) -> None:
    """Raise SplitError naming what is on both sides of a fold, with its slides on each side."""
    leaks = find_leaks(table, fold, sites=sites)
    if not leaks:
        return
    counts = {kind: sum(leak.kind == kind for leak in leaks) for kind in _KINDS}
    kinds = " and ".join(counted(n, kind) for kind, n in counts.items() if n)
    raise SplitError(
        f"fold {fold.number} divides {kinds}: {listed([str(leak) for leak in leaks])}",
        todo="All slides of a patient, copies of a file"
        + (" and slides of a site" if sites else "")
        + " must have the same value in the column split.",
    )


def _leaks_of(table: pd.DataFrame, fold: Fold, kind: str) -> list[Leak]:
    column = _KINDS[kind]
    sides: dict[str, dict[str, tuple[str, ...]]] = {}
    for part, rows in fold.parts():
        found = table.iloc[rows]
        found = found[found[column].notna() & (found[column].astype(str).str.strip() != "")]
        for name, slides in found["slide_id"].astype(str).groupby(found[column].astype(str)):
            sides.setdefault(str(name), {})[part] = tuple(slides)
    return [Leak(kind, name, parts) for name, parts in sorted(sides.items()) if len(parts) > 1]
