"""A manifest as rows of cells in known columns, before they become records."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.cohort.records import OUTCOME
from wsi_pipeline.cohort.table_words import is_missing
from wsi_pipeline.cohort.tables.columns import Columns, normalise
from wsi_pipeline.cohort.tables.survival_columns import event_of_censored, with_survival

WRITTEN, EACH_SLIDE, TARGET, ENDPOINT = "label_as_written", "each_slide_a_patient", "label_column", "survival_endpoint"
OWN_COLUMNS = (WRITTEN, EACH_SLIDE, TARGET, ENDPOINT)
"""Columns of a run's cohort.csv after those of the manifest: decisions about the table that can be revised."""


class Table:
    """Header, rows and the meaning of each column; time and event derived from several columns are added.

    places   our name -> position in each row
    """

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]], columns: Columns) -> None:
        self.header, self.columns = list(header), columns
        self.rows: list[list[str]] = [list(row) for row in rows]
        self.places = dict(columns.places)
        if columns.survival.gdc:
            width = len(header)
            self.rows = [
                [*row[:width], *[""] * (width - len(row)), *with_survival(columns.survival, row)] for row in rows
            ]
            self.places |= {name: width + k for k, name in enumerate(OUTCOME)}
        elif (place := columns.survival.censored) is not None:
            width = len(header)
            self.rows = [
                [*row[:width], *[""] * (width - len(row)), event_of_censored(row[place]) if place < len(row) else ""]
                for row in rows
            ]
            self.places["event"] = width

    def cells(self, name: str) -> tuple[str, ...]:
        """The cells of one of our columns as written; empty if a cell means no value, or there is no such column."""
        place = self.places.get(name)
        found = ("" if place is None or place >= len(row) else row[place] for row in self.rows)
        return tuple("" if is_missing(cell) else cell for cell in found)

    def written(self) -> tuple[str, ...] | None:
        """Labels as written, before a run settled them; None if no run did."""
        if WRITTEN not in self.header:
            return None
        place = self.header.index(WRITTEN)
        return tuple(row[place].strip() if place < len(row) else "" for row in self.rows)

    def says_each_slide(self) -> bool:
        """Whether the table states in every row that its slide is its own patient."""
        if EACH_SLIDE not in self.header or not self.rows:
            return False
        place = self.header.index(EACH_SLIDE)
        return all(place < len(row) and row[place].strip().lower() == "yes" for row in self.rows)

    def target(self) -> str:
        """Name of the column the labels were read from, if a run recorded one; else empty."""
        return self._stated(TARGET)

    def endpoint(self) -> str:
        """Which survival `time` and `event` are (`os`, `pfs`), by their columns' names or as a run recorded it."""
        return self.columns.survival.endpoint or self._stated(ENDPOINT)

    def _stated(self, column: str) -> str:
        """The single value of a column that a run added; else empty."""
        if column not in self.header or not self.rows:
            return ""
        place = self.header.index(column)
        names = {row[place].strip() for row in self.rows if place < len(row)}
        return names.pop() if len(names) == 1 else ""

    def unclaimed(self) -> dict[str, tuple[str, ...]]:
        """Columns without a known meaning: header -> stripped cells. The first of two with the same name."""
        found: dict[str, tuple[str, ...]] = {}
        for place in self.columns.unused:
            cells = tuple(row[place].strip() if place < len(row) else "" for row in self.rows)
            name = self.header[place]
            # A column `label` that the user did not choose would later be read as the run's labels.
            if name.strip() and name not in OWN_COLUMNS and normalise(name) != "label":
                found.setdefault(name, cells)
        return found
