"""The manifest: the slides of a cohort and what is known of each.

`read_cohort` takes a CSV, a folder, or a glob. It reads the whole table before it raises, so that one
run of the command reports every fault with its row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path

from wsi_pipeline.cohort.discover import at_home, find_slides
from wsi_pipeline.cohort.records import OUTCOME, Cohort, Fault, SlideRecord
from wsi_pipeline.cohort.table_words import MISSING_WORDS
from wsi_pipeline.cohort.tables.cell_rows import read_rows
from wsi_pipeline.cohort.tables.columns import ALIASES, Columns, find_column, is_patient_name, map_columns, normalise
from wsi_pipeline.cohort.tables.label_words import Numbered, settle_labels
from wsi_pipeline.cohort.tables.manifest_table import EACH_SLIDE, ENDPOINT, OWN_COLUMNS, TARGET, WRITTEN, Table
from wsi_pipeline.cohort.tables.patient_doubts import doubt_words, may_be_patients
from wsi_pipeline.cohort.tables.patients import settle_patients
from wsi_pipeline.cohort.tables.row_record import SPLITS, record_of
from wsi_pipeline.cohort.tables.table_checks import (
    MAX_ID_LENGTH,
    SHOWN,
    check_encoding,
    check_ids,
    check_patients,
    check_queries,
    check_texts,
    id_problem,
)
from wsi_pipeline.cohort.tables.table_rows import is_table, read_table, refuse_other_spreadsheets
from wsi_pipeline.cohort.tables.workbook import split_sheet
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.errors import ManifestError, UsageError
from wsi_pipeline.files.path_choices import split_choice
from wsi_pipeline.files.slide_ids import Named, distinct_ids
from wsi_pipeline.wording import counted, listed

__all__ = [
    "MAX_ID_LENGTH", "MISSING_WORDS", "SPLITS", "Cohort", "Fault", "SlideRecord", "id_problem", "read_cohort",
    "read_csv", "to_csv",
]  # fmt: skip

MOST_FAULTS = 200
"""Most faults listed: a table with a million rows of the wrong kind has a million faults."""


def read_cohort(
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    mixed_labels: bool = False,
    label_column: str | None = None,
    options: TableOptions | None = None,
) -> Cohort:
    """Read a cohort from one CSV or sheet of a workbook, or from folders, globs and slide files.

    mixed_labels    allow different labels on the slides of one patient
    label_column    column of the labels; None: `label` or one of its aliases
    options         which patient each slide belongs to, and which labels are meant

    Raises ManifestError listing every fault with its row, UsageError for another kind of spreadsheet, for a table
    beside other sources, and for options that name something absent. Non-fatal findings (a missing file, an empty
    label, a byte-order mark) are in `Cohort.notes`.
    """
    options = options or TableOptions()
    given = [sources] if isinstance(sources, str | PathLike) else sources
    named = [at_home(source if isinstance(source, str) else Path(source)) for source in given]
    _refuse_odd_tables(named)
    if len(named) == 1 and is_table(named[0]):
        return read_csv(named[0], mixed_labels=mixed_labels, label_column=label_column, options=options)
    for asked, ours in ((options.patient_column, "patient_id"), (label_column, "label")):
        if asked is not None:
            raise UsageError(
                f"no column {asked!r}: the slides do not come from a CSV",
                todo=f"List the slides in a CSV with the columns path and {ours}",
            )
    found = find_slides(named)
    records = [_unlisted(slide_id, path) for slide_id, path in found.slides]
    source = " ".join(str(item) for item in named)
    faults = check_ids((None, record.slide_id) for record in records)
    cohort = _finish(records, source, [*faults, *(Fault(None, note, fatal=False) for note in found.notes)])
    each = options.each_slide_a_patient
    nobody = frozenset[str]() if each else frozenset(record.slide_id for record in records)
    return replace(cohort, without_patient=nobody, each_slide=each)


def _unlisted(slide_id: str, path: Path) -> SlideRecord:
    """The record of a slide that no table lists: only its path, and the part of the file it selects, are known."""
    chosen = split_choice(path)[1]
    image, channel, plane = (chosen.get(key) for key in ("image", "channel", "plane"))
    return SlideRecord(slide_id, path, slide_id, image=image, channel=channel, plane=plane)


def read_run(path: Path, options: TableOptions) -> Cohort:
    """Read a run's cohort.csv, with options given afterwards.

    Raises UsageError if `options` name a column that the run did not keep.
    """
    if options.patient_column is not None:
        header = (read_rows(path)[0] or [[]])[0]
        if find_column(header, options.patient_column) is None:
            if not is_patient_name(options.patient_column) or read_csv(path, mixed_labels=True).without_patient:
                how = f"wsi-pipeline tile SLIDES --patient-column {options.patient_column!r}"
                raise UsageError(
                    f"{path} has no column {options.patient_column!r}",
                    todo=f"Name it when the table is read: {how}",
                )
            options = replace(options, patient_column="patient_id")
    return read_csv(path, mixed_labels=True, options=options)


def read_csv(
    path: str | PathLike[str],
    *,
    mixed_labels: bool = False,
    label_column: str | None = None,
    options: TableOptions | None = None,
) -> Cohort:
    """Read a manifest: a CSV, FILE.xlsx or FILE.xlsx#SHEET.

    See `read_cohort` for what is raised and `manifests/README.md` for the columns.
    """
    options, found = options or TableOptions(), read_table(path)
    path, header, faults = split_sheet(str(path))[0], found.header, list(found.faults)
    for asked in (options.patient_column, label_column):
        if asked is not None and find_column(header, asked) is None:
            raise UsageError(f"{path} has no column {asked!r}", todo=f"Its columns: {', '.join(map(repr, header))}")
    columns = map_columns(header, [row for _, row in found.body], options.patient_column, label_column)
    faults += _column_faults(header, columns)
    if "path" not in columns.places and "slide_id" not in columns.places:
        names = ", ".join(repr(name) for name in header) or "none"
        faults.append(Fault(1, f"no column `path` (or wsi, filename, ...); columns here: {names}"))
        return _finish([], str(path), faults)
    faults += found.troubles_of(columns.places.values())
    parsed = found.body
    faults += [
        Fault(i, f"{counted(len(row), 'cell')} where the header has {len(header)} (a stray separator?)")
        for i, row in parsed
        if len(row) > len(header)
    ]
    table = Table(header, [row for _, row in parsed], columns)
    numbered = [
        (i, record_of(i, row, table.places, path.resolve().parent, faults))
        for (i, _), row in zip(parsed, table.rows, strict=True)
    ]
    if "path" in table.places and "slide_id" not in table.places:
        numbered = _with_distinct_ids(numbered, faults)
    faults += check_ids((i, record.slide_id) for i, record in numbered)
    faults += check_queries(
        (i, row[table.places["path"]])
        for (i, _), row in zip(parsed, table.rows, strict=True)
        if "path" in table.places and table.places["path"] < len(row)
    )
    cohort = _settled(numbered, table, str(path), faults, options, mixed_labels=mixed_labels)
    target = table.target() if label_column is None else _target(header, label_column)
    return replace(cohort, target=target, endpoint=table.endpoint())


def _settled(
    numbered: Numbered, table: Table, source: str, faults: list[Fault], options: TableOptions, *, mixed_labels: bool
) -> Cohort:
    """The cohort, with labels and patients settled over all rows."""
    numbered, written, found = settle_labels(numbered, options, table.written(), has_column="label" in table.places)
    faults = faults + found
    each = options.each_slide_a_patient or (table.says_each_slide() and options.patient_column is None)
    numbered, without, found = settle_patients(numbered, table.cells("patient_id"), each_slide=each)
    faults += found + check_texts(numbered) + check_patients(numbered, mixed_labels)
    cohort = _finish([record for _, record in numbered], source, faults)
    cohort = replace(cohort, without_patient=without, each_slide=each, written=written)
    kept = {}
    if each or options.patient_column is not None or len(without) == len(numbered):
        kept = may_be_patients(cohort.records, table.unclaimed())
    asked = options.patient_column
    if asked is not None and normalise(asked) not in ALIASES:
        kept[asked] = table.cells("patient_id")
    cohort = replace(cohort, kept=kept)
    doubts = tuple(Fault(None, f"{what}. {todo}", fatal=False) for what, todo in doubt_words(cohort)[:1])
    return replace(cohort, notes=cohort.notes + doubts)


def _target(header: Sequence[str], asked: str) -> str:
    """The column that the labels come from as the table names it; empty for `label`, which needs no name."""
    place = find_column(header, asked)
    name = asked if place is None else header[place].strip()
    return "" if normalise(name) == "label" else name


def _column_faults(header: Sequence[str], columns: Columns) -> list[Fault]:
    faults = [Fault(1, message) for message in columns.faults]
    faults += [Fault(1, message, fatal=False) for message in columns.notes]
    known = {*columns.places, *(OUTCOME if columns.survival.gdc else ())}
    known |= {"event"} if columns.survival.censored is not None else set()
    for one, other in (OUTCOME, OUTCOME[::-1]):
        if one in known and other not in known:
            faults.append(
                Fault(1, f"column {one} without a column {other}: no survival model can be trained", fatal=False)
            )
    unused = [repr(header[i]) for i in columns.unused if header[i] not in OWN_COLUMNS]
    if unused:
        faults.append(Fault(1, f"columns not used: {', '.join(unused)}", fatal=False))
    return faults


def _with_distinct_ids(numbered: list[tuple[int, SlideRecord]], faults: list[Fault]) -> list[tuple[int, SlideRecord]]:
    """Rows named after their files: equal names get the names of their folders as a prefix."""
    named = [Named(record.slide_id, record.path, record.path.parent) for _, record in numbered]
    ids, notes = distinct_ids(named)
    faults += [Fault(None, note, fatal=False) for note in notes]
    made = []
    for (row, record), slide_id in zip(numbered, ids, strict=True):
        patient = slide_id if record.patient_id == record.slide_id else record.patient_id
        made.append((row, replace(record, slide_id=slide_id, patient_id=patient)))
    return made


def to_csv(cohort: Cohort) -> str:
    """The cohort as CSV text, with our column names and absolute paths.

    Further columns follow if needed: labels as written, whether each slide is a patient, the column the labels were
    read from, and columns that may be patients, so that open questions can still be answered for the run.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [item.name for item in fields(SlideRecord)]
    more = ([WRITTEN] if cohort.written else []) + ([EACH_SLIDE] if cohort.each_slide else [])
    more += [name for name, own in ((TARGET, cohort.target), (ENDPOINT, cohort.endpoint)) if own]
    writer.writerow([*names, *more, *cohort.kept])
    for number, record in enumerate(cohort.records):
        own = {name: getattr(record, name) for name in names}
        if record.slide_id in cohort.without_patient:
            own["patient_id"] = None
        written = cohort.written.get(record.slide_id, record.label)
        behind = ([written] if cohort.written else []) + (["yes"] if cohort.each_slide else [])
        behind += [own for own in (cohort.target, cohort.endpoint) if own]
        values = [*own.values(), *behind, *(cells[number] for cells in cohort.kept.values())]
        writer.writerow(["" if value is None else str(value) for value in values])
    return out.getvalue()


def _refuse_odd_tables(sources: Sequence[str | Path]) -> None:
    """Refuse unsupported spreadsheets, and tables given with other sources: they would be read as slides."""
    refuse_other_spreadsheets(sources)
    if len(sources) > 1 and any(is_table(source) for source in sources):
        raise UsageError(
            f"a table cannot be combined with other sources: {' '.join(map(str, sources))[:SHOWN]}",
            todo="Put all slides into one CSV, or name folders, globs and slide files only",
        )


def _finish(records: list[SlideRecord], source: str, faults: list[Fault]) -> Cohort:
    faults = faults + check_encoding(records)
    fatal = sorted((fault for fault in faults if fault.fatal), key=lambda fault: fault.row or 0)
    notes = sorted((fault for fault in faults if not fault.fatal), key=lambda fault: fault.row or 0)
    if not records and not fatal:
        fatal = [Fault(None, "it lists no slides")]
    if fatal:
        lines = listed([*fatal, *notes], MOST_FAULTS, "\n  ")
        raise ManifestError(
            f"{source} cannot be used: {counted(len(fatal), 'fault')}\n  {lines}",
            todo="Fix the rows listed; manifests/README.md describes the columns",
        )
    return Cohort(tuple(records), source, tuple(notes))
