"""Patients from a clinical table with one row per slide, for slides whose patient the run does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wsi_pipeline.cohort.clinical.clinical_table import ClinicalTable
from wsi_pipeline.cohort.clinical.join import Joined
from wsi_pipeline.cohort.records import Cohort
from wsi_pipeline.cohort.table_words import is_missing, patient_key
from wsi_pipeline.cohort.tables.columns import patient_columns
from wsi_pipeline.errors import ManifestError, UsageError
from wsi_pipeline.wording import counted, listed

_MOST_FAULTS = 20


def with_patients(cohort: Cohort, joined: Joined, patient_column: str | None = None) -> tuple[Cohort, str]:
    """The cohort in which slides of unknown patient have the one in the table; and a sentence on it, "" if none has.

    joined           the table, joined to all records of the cohort
    patient_column   the table's column of patients, if the user names it

    If the table has no column of patients, its columns are kept as candidates (`Cohort.kept`). Raises UsageError if
    several columns may be patients, ManifestError if the table contradicts itself or the run.
    """
    if joined.unit != "slide" or not cohort.without_patient:
        return cohort, ""
    table = joined.table
    place = _patient_place(joined, patient_column)
    if place is None:
        return _with_candidates(cohort, joined), ""
    whose = _whose(cohort, joined, place)
    _check_same(cohort, table, whose)
    known = {slide: whose[slide] for slide in cohort.without_patient if slide in whose}
    if not known:
        return cohort, ""
    records = tuple(
        replace(one, patient_id=known[one.slide_id]) if one.slide_id in known else one for one in cohort.records
    )
    patients = counted(len(set(known.values())), "patient")
    slides = counted(len(known), "slide")
    found = replace(cohort, records=records, without_patient=cohort.without_patient - set(known))
    return found, f"{patients} of {slides}, by {table.header[place]!r}"


def _patient_place(joined: Joined, wanted: str | None) -> int | None:
    table = joined.table
    if wanted is not None:
        found = [table.place_of(wanted, "--patient-column")]
    else:
        found = patient_columns(table.header, [cells for _, cells in table.rows])
    found = [place for place in found if place != joined.column]
    if len(found) > 1:
        named = listed([repr(table.header[place]) for place in found])
        raise UsageError(f"{table.name} has several columns of patients: {named}", todo="Name one: --patient-column")
    return found[0] if found else None


def _whose(cohort: Cohort, joined: Joined, place: int) -> dict[str, str]:
    """slide_id -> its patient in the table. Raises ManifestError for a slide with two, and for ids changed by Excel."""
    table, cells = joined.table, joined.table.column(place)
    name, faults = table.header[place], []
    whose: dict[str, str] = {}
    for record, rows in zip(cohort.records, joined.rows, strict=True):
        for row in rows:
            number, cell = table.rows[row][0], cells[row]
            if (number, place) in table.troubles:
                faults.append(f"row {number}: {name!r} {table.troubles[number, place]}")
            elif not is_missing(cell) and whose.setdefault(record.slide_id, cell) != cell:
                faults.append(
                    f"row {number}: slide {record.slide_id} has two patients: {whose[record.slide_id]!r}, {cell!r}"
                )
    if faults:
        lines = listed(faults, _MOST_FAULTS, "\n  ")
        raise ManifestError(
            f"{table.name} cannot be used: {counted(len(faults), 'fault')}\n  {lines}", todo="Correct these rows"
        )
    return whose


def _check_same(cohort: Cohort, table: ClinicalTable, whose: Mapping[str, str]) -> None:
    """Raise ManifestError if run and table name a patient differently: one patient would count as two."""
    for record in cohort.records:
        stated = record.slide_id in whose and record.slide_id not in cohort.without_patient
        if stated and patient_key(whose[record.slide_id]) != patient_key(record.patient_id):
            raise ManifestError(
                f"slide {record.slide_id} is of patient {record.patient_id!r} in the run, of "
                f"{whose[record.slide_id]!r} in {table.name}",
                todo="Write the patients alike in both tables: the run takes those of other slides from the second",
            )


def _with_candidates(cohort: Cohort, joined: Joined) -> Cohort:
    """The cohort that also keeps the table's columns, in case one of them holds the patients."""
    table = joined.table
    first = [rows[0] if rows else None for rows in joined.rows]
    more = {}
    for place, name in enumerate(table.header):
        if name and place != joined.column:
            cells = table.column(place)
            more[name] = tuple("" if row is None else cells[row] for row in first)
    return replace(cohort, kept={**more, **cohort.kept})
