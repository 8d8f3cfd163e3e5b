"""A table of slides as rows of text, from a CSV or a sheet of a workbook."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from wsi_pipeline.cohort.records import Fault
from wsi_pipeline.cohort.tables.cell_rows import read_rows
from wsi_pipeline.cohort.tables.workbook import OTHER_SPREADSHEETS, WORKBOOKS, read_sheet, split_sheet
from wsi_pipeline.errors import UsageError


@dataclass(frozen=True)
class TableRows:
    """The column names, and the rows below them with their numbers as in a spreadsheet.

    faults     notes on how the table was read
    troubles   (row number, place) -> what a spreadsheet program has changed in that cell
    """

    header: list[str]
    body: list[tuple[int, list[str]]]
    faults: list[Fault]
    troubles: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def troubles_of(self, places: Iterable[int]) -> list[Fault]:
        """A fault for each cell of these columns whose meaning is lost."""
        used = set(places)
        return [
            Fault(row, f"{self.header[place]!r} {why}")
            for (row, place), why in sorted(self.troubles.items())
            if place in used and any(row == number for number, _ in self.body)
        ]


def read_table(source: str | PathLike[str]) -> TableRows:
    """Read `FILE.csv`, `FILE.xlsx` or `FILE.xlsx#SHEET`; rows without any cell are left out.

    Raises UsageError if the file cannot be read, ManifestError if it is not a valid CSV.
    """
    path, sheet = split_sheet(os.fspath(source))
    if path.suffix.lower() not in WORKBOOKS:
        rows, faults = read_rows(path)
        header, body = (rows[0], rows[1:]) if rows else ([], [])
        return TableRows(header, [(i, row) for i, row in enumerate(body, start=2) if _filled(row)], faults)
    found = read_sheet(path, sheet)
    notes = [Fault(None, note, fatal=False) for note in found.notes]
    sheet_rows = [(number, list(cells)) for number, cells in found.rows]
    header = sheet_rows[0][1] if sheet_rows else []
    numbered = [(i, cells + [""] * (len(header) - len(cells))) for i, cells in sheet_rows[1:]]
    return TableRows(header, numbered, notes, found.troubles)


def is_table(source: str | Path) -> bool:
    """Whether a source is a table of slides, judged by its name."""
    path = split_sheet(str(source))[0]
    return path.suffix.lower() in {".csv", ".tsv", ".txt", *WORKBOOKS} and not path.is_dir()


def refuse_other_spreadsheets(sources: Sequence[str | Path]) -> None:
    """Raise UsageError for an unsupported kind of spreadsheet, which would otherwise be taken for a slide."""
    for path in map(Path, sources):
        if path.suffix.lower() in OTHER_SPREADSHEETS and path.is_file():
            raise UsageError(
                f"{path} is a spreadsheet of a kind that is not read", todo="Save it as .xlsx or CSV (UTF-8)"
            )


def _filled(row: Sequence[str]) -> bool:
    return any(cell.strip() for cell in row)
