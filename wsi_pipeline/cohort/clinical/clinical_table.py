"""A clinical table as written: column names and rows of text, from a CSV or a sheet of a workbook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wsi_pipeline.cohort.tables.cell_rows import read_rows
from wsi_pipeline.cohort.tables.columns import find_column, normalise
from wsi_pipeline.cohort.tables.workbook import OTHER_SPREADSHEETS, WORKBOOKS, read_sheet, split_sheet
from wsi_pipeline.errors import UsageError
from wsi_pipeline.wording import counted, listed

SHOWN_COLUMNS = 30


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Rows of text with their column names.

    name       the file, with its sheet
    rows       row number as in a spreadsheet, and cells; empty rows are left out
    notes      how it was read
    troubles   (row number, place) -> what is wrong with that cell, in case it is used
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()
    troubles: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def column(self, place: int) -> list[str]:
        """The cells of a column, stripped of surrounding spaces."""
        return [cells[place].strip() if place < len(cells) else "" for _, cells in self.rows]

    def place_of(self, wanted: str, what: str) -> int:
        """Position of a column: by its exact name, else by its normalised name.

        Raises UsageError if no column, or several, have that name.
        """
        place = find_column(self.header, wanted)
        if place is None:
            named = listed([repr(name) for name in self.header if name], SHOWN_COLUMNS)
            raise UsageError(f"{self.name} has no column {wanted!r} ({what})", todo=f"Its columns: {named}")
        same = [name for name in self.header if name == self.header[place]]
        alike = [name for name in self.header if normalise(name) == normalise(wanted)]
        if len(same) > 1 or (self.header[place] != wanted and len(alike) > 1):
            raise UsageError(f"{self.name} has {len(alike)} columns {wanted!r}", todo="Give each a name of its own")
        return place


def read_clinical(source: str) -> ClinicalTable:
    """Read `FILE.csv`, `FILE.xlsx` or `FILE.xlsx#SHEET`.

    Raises UsageError if the file cannot be read as a table, ManifestError if it is not a valid CSV.
    """
    path, sheet = split_sheet(source)
    if path.suffix.lower() in OTHER_SPREADSHEETS:
        raise UsageError(
            f"{path} is a spreadsheet of a kind that is not read ({path.suffix})", todo="Save it as .xlsx or CSV"
        )
    if path.suffix.lower() in WORKBOOKS:
        found = read_sheet(path, sheet)
        rows, notes = found.rows, found.notes
        name = f"{path}#{found.name}" if sheet is not None else str(path)
        troubles = found.troubles
    else:
        cells, faults = read_rows(path)
        rows = tuple((k, tuple(row)) for k, row in enumerate(cells, start=1) if any(cell.strip() for cell in row))
        name, notes, troubles = str(path), tuple(str(fault) for fault in faults), {}
    if len(rows) < 2:
        raise UsageError(f"{name} has a header but no rows", todo="Name a table with one row per patient")
    header = tuple(cell.strip() for cell in rows[0][1])
    long = [number for number, row in rows[1:] if len(row) > len(header) and any(c.strip() for c in row[len(header) :])]
    if long:
        raise UsageError(
            f"{name}, row {long[0]}: more cells than the header, {counted(len(header), 'column')}",
            todo="Look for a stray separator, or a value with a comma that needs quotation marks",
        )
    return ClinicalTable(name, header, rows[1:], notes, troubles)
