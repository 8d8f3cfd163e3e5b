"""Groups and splits of labelled patches that come from slides of a manifest."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.tables.columns import normalise
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.splits.image_groups import group_by_pattern
from wsi_pipeline.wording import listed

_COLUMNS = ("patient_id", "slide_id", "site", "stain")


def slide_groups(records: Sequence[SlideRecord], spec: LabelSpec, notes: list[str]) -> list[str]:
    """The group of each slide: its patient, or what `group_column` or `group_pattern` say instead.

    Raises LabelError for another column, or one that is empty for a slide.
    """
    if spec.group_column is not None:
        column = normalise(spec.group_column)
        if column not in _COLUMNS:
            raise LabelError(f"group_column of slides must be one of {', '.join(_COLUMNS)}, got {spec.group_column!r}")
        values = [getattr(record, column) for record in records]
        if None in values:
            raise LabelError(f"slide {records[values.index(None)].slide_id} has no {column} to be grouped by")
        return values
    if spec.group_pattern:
        return group_by_pattern([record.slide_id for record in records], spec.group_pattern, notes)
    return [record.patient_id for record in records]


def slide_splits(records: Sequence[SlideRecord]) -> list[str] | None:
    """train, val or test for each slide, or None where the manifest has none. Raises LabelError for gaps."""
    splits = [record.split for record in records]
    if not any(splits):
        return None
    missing = [record.slide_id for record in records if record.split is None]
    if missing:
        raise LabelError(
            f"split must be filled in for every labelled slide or for none; it is not for {listed(missing)}"
        )
    return [split or "" for split in splits]
