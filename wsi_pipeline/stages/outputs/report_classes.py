"""What the report tells of classify: gathered from the class stores of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.report.data import ClassRow, ClassSection
from wsi_pipeline.stages.results.fractions import classified, gather_fractions
from wsi_pipeline.store.schema import Header

Picture = Callable[[Path], bytes | None]
"""A picture's file to its bytes for the report, None where it is not there."""


def class_sections(run: RunDir, records: Sequence[SlideRecord], picture: Picture) -> tuple[ClassSection, ...]:
    """A section for each adapter that slides of this run were classified with."""
    sections = (_section(run, folder, records, picture) for folder in classified(run))
    return tuple(section for section in sections if section is not None)


def _section(run: RunDir, folder: str, records: Sequence[SlideRecord], picture: Picture) -> ClassSection | None:
    headers = gather_fractions(run, folder, records).headers
    if not headers:
        return None
    first = next(iter(headers.values())).extra
    rows = tuple(
        _row(slide_id, header, picture(run.class_overlay(folder, slide_id))) for slide_id, header in headers.items()
    )
    notes = dict.fromkeys(str(header.extra["fit_note"]) for header in headers.values() if header.extra.get("fit_note"))
    return ClassSection(
        str(first["encoder"]["name"]), str(first["adapter"]), tuple(first["classes"]), rows, tuple(notes)
    )


def _row(slide_id: str, header: Header, overlay: bytes | None) -> ClassRow:
    extra = header.extra
    shown = overlay if extra["patches"] else None
    return ClassRow(slide_id, int(extra["patches"]), dict(extra["fractions"]), float(extra["unclear"]), shown)
