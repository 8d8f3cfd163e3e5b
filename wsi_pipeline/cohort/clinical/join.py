"""Which row of a clinical table describes which slide: joined by patient, or by slide if the rows are slides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.cohort.clinical.clinical_table import ClinicalTable
from wsi_pipeline.cohort.clinical.match_ids import IdMatch, match_ids
from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.table_words import is_missing
from wsi_pipeline.cohort.tables.columns import ALIASES, find_column, is_patient_name, normalise
from wsi_pipeline.errors import ManifestError
from wsi_pipeline.files.foreign_formats import base_name
from wsi_pipeline.files.suffixes import slide_id_of
from wsi_pipeline.wording import counted, listed

_SLIDES = (
    "slide_id", "slide", "slide_name", "slidename", "slideid", "image_id", "path", "wsi", "filename", "file_name",
    "file", "filepath", "file_path", "slide_path", "wsi_path", "image_path", "slide_file",
)  # fmt: skip
"""Names of columns that identify the slide of a row."""
_WEAK = ("id", "name", "sample", "sample_id", "record_id", "study_id", "identifier", "barcode")
"""Names of columns that may identify either; their content decides."""
_FEATURE_FILES = (".h5", ".hdf5", ".pt", ".zarr", ".npy", ".npz", ".safetensors")
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Joined:
    """A clinical table joined to slides.

    column   its column of ids; `unit` says whether they identify patients or slides
    rows     for each slide the positions of its rows in the table, in order; empty if there are none
    summary  one sentence: what matched and what did not
    """

    table: ClinicalTable
    column: int
    unit: str
    rows: tuple[tuple[int, ...], ...]
    summary: str
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Way:
    """One way to join: a column, what its ids identify, and which match; `cells` are the ids, one per row."""

    place: int
    unit: str
    cells: tuple[str, ...]
    match: IdMatch


def join(
    table: ClinicalTable, records: Sequence[SlideRecord], patient_column: str | None = None, *, by_slide: bool = False
) -> Joined:
    """Join a table to slides by the column of ids that matches most of them.

    patient_column   the column of patients, if the user names it
    by_slide         a column of slides takes precedence over columns of patients if any of its ids match

    Raises UsageError if that column does not exist. Raises ManifestError if Excel has changed ids, or if nothing
    matches (with ids of both sides).
    """
    ways = _ways(table, records, patient_column)
    if by_slide:
        ways = [way for way in ways if way.unit == "slide" and len(way.match)] or ways
    named = [way for way in ways if patient_column is not None and way.place == ways[0].place and len(way.match)]
    best = max(named or ways, key=lambda way: len(way.match), default=None)
    if best is None or not len(best.match):
        raise _nothing(table, records, ways)
    if best.unit == "slide" and (by_patient := _as_good(ways, best)) is not None:
        best = by_patient
    elif best.unit == "patient":
        best = _by_row_of_each_slide(ways, best, records) or best
    bad = [(row, table.troubles[row, best.place]) for row, _ in table.rows if (row, best.place) in table.troubles]
    if bad:
        lines = listed([f"row {row}: {table.header[best.place]!r} {why}" for row, why in bad], 20, "\n  ")
        raise ManifestError(f"{table.name} cannot be used: {counted(len(bad), 'fault')}\n  {lines}")
    where: dict[str, list[int]] = defaultdict(list)
    for position, cell in enumerate(best.cells):
        where[cell].append(position)
    names = [record.patient_id if best.unit == "patient" else record.slide_id for record in records]
    rows = tuple(tuple(where[best.match.found[name]]) if name in best.match.found else () for name in names)
    return Joined(table, best.place, best.unit, rows, _sentence(table, best, names), tuple(best.match.notes(best.unit)))


def _as_good(ways: Sequence[_Way], best: _Way) -> _Way | None:
    """A join by patients in which each row is a different patient: the outcome is then the patient's."""
    for way in ways:
        known = [cell for cell in way.cells if cell]
        if way.unit == "patient" and len(way.match) and len(set(known)) == len(known) >= len(set(best.cells) - {""}):
            return way
    return None


def _by_row_of_each_slide(ways: Sequence[_Way], best: _Way, records: Sequence[SlideRecord]) -> _Way | None:
    """A join by slides, if patients have several rows and every slide of a matched patient has a row of its own."""
    known = [cell for cell in best.cells if cell]
    if len(set(known)) == len(known):
        return None
    wanted = {record.slide_id for record in records if record.patient_id in best.match.found}
    return next((way for way in ways if way.unit == "slide" and wanted <= set(way.match.found)), None)


def _ways(table: ClinicalTable, records: Sequence[SlideRecord], wanted: str | None) -> list[_Way]:
    patients, slides = ([getattr(r, name) for r in records] for name in ("patient_id", "slide_id"))
    names = [normalise(name) for name in table.header]
    of_slides = [k for k, name in enumerate(names) if name in _SLIDES]
    if wanted is not None:
        place = table.place_of(wanted, "--patient-column")
        ways = [_way(table, place, unit, ids) for unit, ids in (("patient", patients), ("slide", slides))]
        # The run may not know these patients yet: the rows are then found by their slides.
        return ways + [_way(table, k, "slide", slides) for k in of_slides if k != place]
    of_patients = [k for k, name in enumerate(table.header) if is_patient_name(name)]
    ways = [_way(table, k, "patient", patients) for k in of_patients]
    ways += [_way(table, k, "slide", slides) for k in of_slides]
    if any(len(way.match) for way in ways):
        return ways
    weak = [k for k, name in enumerate(names) if name in _WEAK]
    return ways + [_way(table, k, unit, ids) for k in weak for unit, ids in (("patient", patients), ("slide", slides))]


def _way(table: ClinicalTable, place: int, unit: str, ours: Sequence[str]) -> _Way:
    cells = tuple("" if is_missing(cell) else cell for cell in table.column(place))
    match = match_ids(ours, (cell for cell in cells if cell))
    if unit == "slide":
        plain = {cell: slide_name(cell) for cell in cells if cell}
        by_name = match_ids(ours, plain.values())
        if len(by_name) > len(match):
            return _Way(place, unit, tuple(plain.get(cell, "") for cell in cells), by_name)
    return _Way(place, unit, cells, match)


def slide_name(cell: str) -> str:
    """The slide that a cell names by its slide file or feature file: `a/b/s1.svs` and `s1.h5` are `s1`."""
    name = base_name(cell)
    for suffix in _FEATURE_FILES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return slide_id_of(Path(name))


def _sentence(table: ClinicalTable, way: _Way, names: Sequence[str]) -> str:
    ours, theirs = dict.fromkeys(names), dict.fromkeys(cell for cell in way.cells if cell)
    noun, matched = way.unit, set(way.match.found.values())
    without_row = [name for name in ours if name not in way.match.found]
    without_slide = [name for name in theirs if name not in matched]
    head = f"{len(way.match)} of {counted(len(ours), noun)}" if without_row else f"all {counted(len(ours), noun)}"
    parts = [f"{head} found by {table.header[way.place]!r}"]
    if without_row:
        parts.append(f"{counted(len(without_row), noun)} not in the table ({listed(without_row, _SHOWN)})")
    if without_slide:
        what = "without slides" if noun == "patient" else "not in this run"
        parts.append(f"{counted(len(without_slide), noun)} of the table {what} ({listed(without_slide, _SHOWN)})")
    return "; ".join(parts)


def _nothing(table: ClinicalTable, records: Sequence[SlideRecord], ways: Sequence[_Way]) -> ManifestError:
    patients = dict.fromkeys(record.patient_id for record in records)
    if not ways:
        named = listed([repr(name) for name in table.header if name], 20)
        what = f"{table.name} has no patient column; its columns: {named}"
    else:
        ids = [f"{table.header[way.place]!r} holds {_first(way.cells)}" for way in {w.place: w for w in ways}.values()]
        what = f"nothing in {table.name} matches the slides: its column {'; '.join(ids)}"
    what += f". The run has the patients {_first(patients)} and the slides {_first(r.slide_id for r in records)}"
    return ManifestError(what, todo=_what_to_do(table, records, ways))


def _first(ids: object) -> str:
    known = list(dict.fromkeys(cell for cell in ids if cell))  # type: ignore[attr-defined]
    return listed([repr(cell) for cell in known], _SHOWN)


def _what_to_do(table: ClinicalTable, records: Sequence[SlideRecord], ways: Sequence[_Way]) -> str:
    """Advice: the column that would match, or that ids of one side are beginnings of ids of the other."""
    patients = [record.patient_id for record in records]
    slides = [record.slide_id for record in records]
    tried = {way.place for way in ways}
    for place, name in enumerate(table.header):
        if (
            name
            and place not in tried
            and any(len(_way(table, place, "patient", ids).match) for ids in (patients, slides))
        ):
            return f"The column {name!r} holds ids of this run: --patient-column {name!r}"
    for way in ways:
        known = [cell for cell in dict.fromkeys(way.cells) if len(cell) > 2]
        if known and sum(name.startswith(tuple(known)) for name in patients) > len(patients) / 2:
            return (
                f"Ids of the run begin like those in {table.header[way.place]!r}: add a column patient_id with the "
                "latter to the slide table and run wsi-pipeline tile again"
            )
        if known and sum(cell.startswith(tuple(patients)) for cell in known) > len(known) / 2:
            return f"Values of {table.header[way.place]!r} begin like patients of the run: write both alike"
    return "Write ids alike in both tables, or name the column: --patient-column NAME"


def has_column(table: ClinicalTable, name: str) -> bool:
    """Whether a table has a column of that name."""
    return find_column(table.header, name) is not None


def label_columns(table: ClinicalTable) -> list[str]:
    """Columns with a usual name of a label column."""
    names = ("label", *ALIASES["label"])
    return [name for name in table.header if normalise(name) in names]
