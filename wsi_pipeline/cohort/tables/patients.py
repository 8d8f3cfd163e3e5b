"""The patients of a table, and notes on their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wsi_pipeline.cohort.records import Fault, SlideRecord
from wsi_pipeline.cohort.table_words import alike, patient_key
from wsi_pipeline.wording import listed

Numbered = list[tuple[int, SlideRecord]]


def settle_patients(
    numbered: Numbered, cells: Sequence[str], *, each_slide: bool
) -> tuple[Numbered, frozenset[str], list[Fault]]:
    """Return the records with their patients, the slides whose patient is not stated, and notes.

    cells       cell of each record in the patient column; empty if there is no such column
    each_slide  every slide is its own patient, whatever a column says

    If every patient is named after its slide, as in older runs, patients count as not stated.
    """
    if each_slide:
        return [(row, replace(record, patient_id=record.slide_id)) for row, record in numbered], frozenset(), []
    stripped = [cell.strip() for cell in cells]
    if all(cell in ("", record.slide_id) for cell, (_, record) in zip(stripped, numbered, strict=True)):
        return numbered, frozenset(record.slide_id for _, record in numbered), []
    empty = [(row, record.slide_id) for cell, (row, record) in zip(stripped, numbered, strict=True) if not cell]
    faults = [Fault(row, f"empty patient_id: {slide} counts as its own patient", fatal=False) for row, slide in empty]
    return numbered, frozenset(slide for _, slide in empty), [*faults, *_odd_writing(cells)]


def _odd_writing(cells: Sequence[str]) -> list[Fault]:
    """Notes on ids that differ only in spelling."""
    spaced = list(dict.fromkeys(repr(cell) for cell in cells if cell != cell.strip()))
    notes = [f"patient_id {listed(spaced)}: surrounding spaces are ignored"] if spaced else []
    for group in alike(dict.fromkeys(cell.strip() for cell in cells if cell.strip()), patient_key):
        named = listed([repr(name) for name in group])
        notes.append(
            f"patients {named} differ only in spelling and count as {len(group)} patients: use one spelling in all rows"
        )
    return [Fault(None, note, fatal=False) for note in notes]
