"""The manifest: which slides a cohort has, and what is known of each.

`read_cohort` takes a CSV, a folder, or a glob. It reads everything before it judges anything, so that one
run of the command shows every fault with its row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from wsi_pipeline.cohort.cellrows import read_rows
from wsi_pipeline.cohort.checks import (
    MAX_ID_LENGTH,
    SHOWN,
    check_encoding,
    check_ids,
    check_patients,
    check_texts,
    id_problem,
)  # fmt: skip
from wsi_pipeline.cohort.columns import map_columns
from wsi_pipeline.cohort.discover import at_home, find_slides, slide_id_of
from wsi_pipeline.cohort.records import OUTCOME, Cohort, Fault, SlideRecord
from wsi_pipeline.cohort.rowrecord import MISSING_WORDS, SPLITS, record_of
from wsi_pipeline.errors import ManifestError, UsageError

__all__ = [
    "MAX_ID_LENGTH", "MISSING_WORDS", "SPLITS", "Cohort", "Fault", "SlideRecord", "id_problem", "read_cohort",
    "read_csv", "to_csv",
]  # fmt: skip

MOST_FAULTS = 200
"""So many are listed; a table of a million rows of the wrong kind has a million of them."""
_SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")


def read_cohort(sources: Sequence[str | Path], *, mixed_labels: bool = False) -> Cohort:
    """Read a cohort from one CSV, or from folders, globs and slide files.

    mixed_labels    let the slides of one patient carry different labels

    Raises ManifestError listing every fault with its row, UsageError for a spreadsheet and for a CSV beside other
    sources. What does not stop a cohort (a missing file, an empty label, a byte-order mark) is in `Cohort.notes`.
    """
    sources = [at_home(source) for source in sources]
    _refuse_odd_tables(sources)
    if len(sources) == 1 and _is_table(Path(sources[0])):
        return read_csv(Path(sources[0]), mixed_labels=mixed_labels)
    paths = find_slides(sources)
    records = [SlideRecord(slide_id_of(path), path, slide_id_of(path)) for path in paths]
    source = " ".join(str(item) for item in sources)
    faults = check_ids((None, record.slide_id) for record in records)
    return _finish(records, source, faults)


def read_csv(path: Path, *, mixed_labels: bool = False) -> Cohort:
    """Read a manifest CSV; see `read_cohort` for what is raised and `manifests/README.md` for the columns."""
    rows, notes = read_rows(path)
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    columns, unused, faults_text = map_columns(header)
    faults = notes + [Fault(1, message) for message in faults_text]
    for one, other in (OUTCOME, OUTCOME[::-1]):
        if one in columns and other not in columns:
            faults.append(Fault(1, f"column {one} without a column {other}: no survival can be learned", fatal=False))
    if unused:
        faults.append(Fault(1, f"columns not used: {', '.join(repr(name) for name in unused)}", fatal=False))
    if "path" not in columns and "slide_id" not in columns:
        names = ", ".join(repr(name) for name in header) or "none"
        faults.append(Fault(1, f"no column `path` (or wsi, filename, ...); columns here: {names}"))
        return _finish([], str(path), faults)
    parsed = [(i, row) for i, row in enumerate(body, start=2) if any(cell.strip() for cell in row)]
    faults += [
        Fault(i, f"{len(row)} cells where the header has {len(header)} (a stray separator?)")
        for i, row in parsed
        if len(row) > len(header)
    ]
    numbered = [(i, record_of(i, row, columns, path.resolve().parent, faults)) for i, row in parsed]
    faults += check_ids((i, record.slide_id) for i, record in numbered)
    faults += check_texts(numbered)
    faults += check_patients(numbered, mixed_labels)
    return _finish([record for _, record in numbered], str(path), faults)


def to_csv(cohort: Cohort) -> str:
    """The cohort as CSV text, with our column names and absolute paths."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([item.name for item in fields(SlideRecord)])
    names = [item.name for item in fields(SlideRecord)]
    for record in cohort.records:
        values = (getattr(record, name) for name in names)
        writer.writerow(["" if value is None else str(value) for value in values])
    return out.getvalue()


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in {".csv", ".tsv", ".txt"} and not path.is_dir()


def _refuse_odd_tables(sources: Sequence[str | Path]) -> None:
    """A table that is no CSV, or not alone, would be taken for a slide."""
    paths = [Path(source) for source in sources]
    for path in paths:
        if path.suffix.lower() in _SPREADSHEETS and path.is_file():
            raise UsageError(f"{path} is a spreadsheet", todo="Save it as CSV (UTF-8) and name that")
    if len(paths) > 1 and any(_is_table(path) for path in paths):
        raise UsageError(
            f"a cohort comes from one table or none, got {len(paths)} sources: {' '.join(map(str, paths))[:SHOWN]}",
            todo="Put all slides into one CSV, or name folders, globs and slide files only",
        )


def _finish(records: list[SlideRecord], source: str, faults: list[Fault]) -> Cohort:
    faults = faults + check_encoding(records)
    fatal = sorted((fault for fault in faults if fault.fatal), key=lambda fault: fault.row or 0)
    notes = sorted((fault for fault in faults if not fault.fatal), key=lambda fault: fault.row or 0)
    if not records and not fatal:
        fatal = [Fault(None, "no slides in it")]
    if fatal:
        told = [*fatal, *notes]
        lines = "\n".join(f"  {fault}" for fault in told[:MOST_FAULTS])
        if len(told) > MOST_FAULTS:
            lines += f"\n  and {len(told) - MOST_FAULTS} more"
        count = f"{len(fatal)} fault{'s' if len(fatal) > 1 else ''}"
        raise ManifestError(
            f"{source} cannot be used: {count}\n{lines}",
            todo="Mend the rows named; the columns are in manifests/README.md",
        )
    return Cohort(tuple(records), source, tuple(notes))
