"""Which patches must stay on one side of a split: groups of slides, of named images, and of copies of one image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.tables.columns import normalise
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.assemble import LabelRows
from wsi_pipeline.wording import counted, listed

_COLUMNS = ("patient_id", "slide_id", "site", "stain")


def group_by_pattern(names: Sequence[str], pattern: str, notes: list[str]) -> list[str]:
    """The group of each name: the first match group of `pattern` (or its whole match), else the name itself."""
    finder = re.compile(pattern)
    hits = [finder.search(name) for name in names]
    missed = [name for name, hit in zip(names, hits, strict=True) if hit is None]
    if missed:
        notes.append(
            f"{len(missed)} of {counted(len(names), 'name')} do not match the group pattern, such as {missed[0]}: "
            "each counts as its own group"
        )
    return [
        name if hit is None else next((part for part in hit.groups() if part), hit[0])
        for name, hit in zip(names, hits, strict=True)
    ]


def note_no_groups(rows: LabelRows, noun: str = "image") -> None:
    """Note that every image is its own group."""
    rows.notes.append(
        f"no groups given: each {noun} counts as its own group, so near-duplicates from one patient may leak across "
        "the split"
    )


def join_copies(rows: LabelRows, contents: Sequence[str], owners: Sequence[int]) -> None:
    """Put rows whose images are copies of one another into one group, with a note.

    contents   a digest for each image, equal for copies
    owners     the image of each row
    """
    by_content: dict[str, set[str]] = defaultdict(set)
    labels: dict[str, set[str]] = defaultdict(set)
    for row, owner in enumerate(owners):
        by_content[contents[owner]].add(rows.groups[row])
        labels[contents[owner]].add(rows.labels[row])
    shared = {content: min(groups) for content, groups in by_content.items() if len(groups) > 1}
    if not shared:
        return
    parent = {group: name for content, name in shared.items() for group in by_content[content]}
    rows.groups = [parent.get(group, group) for group in rows.groups]
    copies = sum(len(by_content[content]) for content in shared)
    rows.notes.append(
        f"{copies} images are copies of one another in {counted(len(shared), 'set')}: each set counts as one group"
    )
    torn = sum(len(labels[content]) > 1 for content in shared)
    if torn:
        rows.notes.append(f"{torn} of these sets carry more than one class: check their labels")


def slide_groups(records: Sequence[SlideRecord], spec: LabelSpec, notes: list[str]) -> list[str]:
    """The group of each slide: its patient, or what `group_column` or `group_pattern` select.

    Raises LabelError for any other column, or if it is empty for a slide.
    """
    if spec.group_column is not None:
        column = normalise(spec.group_column)
        if column not in _COLUMNS:
            raise LabelError(f"group_column of slides must be one of {', '.join(_COLUMNS)}, got {spec.group_column!r}")
        values = [getattr(record, column) for record in records]
        if None in values:
            raise LabelError(f"slide {records[values.index(None)].slide_id} has no {column} to group by")
        return values
    if spec.group_pattern:
        return group_by_pattern([record.slide_id for record in records], spec.group_pattern, notes)
    return [record.patient_id for record in records]


def slide_splits(records: Sequence[SlideRecord]) -> list[str] | None:
    """train, val or test for each slide, or None if the manifest has none. Raises LabelError for gaps."""
    splits = [record.split for record in records]
    if not any(splits):
        return None
    missing = [record.slide_id for record in records if record.split is None]
    if missing:
        raise LabelError(
            f"split must be filled in for every labelled slide or for none; it is not for {listed(missing)}"
        )
    return [split or "" for split in splits]
