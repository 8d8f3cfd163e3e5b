"""Labels from a CSV: one image per row (path, label), or one point per row (image, class, x, y)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.discover import SLIDE_SUFFIXES
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.assemble import LabelRows, assemble
from wsi_pipeline.labelled.faults import Faults
from wsi_pipeline.labelled.image_file import IMAGE_SUFFIXES, ImageFact, probe_images
from wsi_pipeline.labelled.image_patches import ImageSet, image_patches, past_border, point_patches
from wsi_pipeline.labelled.labelled_patches import LabelledPatches, Rows
from wsi_pipeline.labelled.sources.label_table import LabelTable
from wsi_pipeline.labelled.splits.patch_groups import group_by_pattern, join_copies, note_no_groups
from wsi_pipeline.wording import counted

_SLIDES = SLIDE_SUFFIXES - IMAGE_SUFFIXES


def open_image_csv(table: LabelTable, spec: LabelSpec, *, least_classes: int = 2) -> LabelledPatches:
    """Labelled patches from a CSV of images; paths are relative to it.

    Raises LabelError if no row can be used or there are fewer than `least_classes` classes.
    """
    files = _Files(table)
    kept = [row for row in range(len(table)) if files.usable(row)]
    rows, images, owners = files.rows(kept, "images")
    _fill_groups(rows, table, kept, images, owners, spec)
    patches = image_patches(ImageSet(*_each(images, owners)), spec, rows.notes)
    return assemble(rows, patches, str(table.path), spec, least_classes=least_classes)


def open_point_csv(table: LabelTable, spec: LabelSpec) -> LabelledPatches:
    """Labelled patches from points on images: a crop of `crop_px` around each. Groups are images unless given.

    Raises LabelError as for images, and if `crop_px` is not given.
    """
    if not spec.crop_px:
        raise LabelError(
            f"{table.path} lists points, but the size of the crops around them is not given",
            todo="Give it in image pixels, for example --crop-px 48",
        )
    files = _Files(table)
    points = np.stack([table.values("x"), table.values("y")], axis=1)
    kept = [row for row in range(len(table)) if files.usable(row) and files.on_image(row, points[row], spec)]
    rows, images, owners = files.rows(kept, "points")
    names = rows.names
    rows.names = [f"{name} ({x:g}, {y:g})" for name, (x, y) in zip(names, points[kept].tolist(), strict=True)]
    if "group" in table.columns:
        _fill_groups(rows, table, kept, images, owners, spec)
    else:
        by_pattern = spec.group_pattern
        rows.groups = group_by_pattern(names, by_pattern, rows.notes) if by_pattern else list(names)
        join_copies(rows, images.digests, owners.tolist())
    patches = point_patches(images, owners, points[kept], spec)
    outside = past_border(patches)
    if outside:
        rows.notes.append(
            f"{outside} of {counted(len(kept), 'crop')} reach past the border: the image is mirrored there"
        )
    return assemble(rows, patches, str(table.path), spec)


class _Files:
    """The image files that a table names, each probed once; faulty rows are recorded."""

    def __init__(self, table: LabelTable) -> None:
        self.table = table
        self.faults = Faults(str(table.path))
        self.names, self.labels = table.cells("path"), table.cells("label")
        unique = list(dict.fromkeys(name for name in self.names if name))
        paths = [table.path.resolve().parent / _expanded(name) for name in unique]
        found = probe_images(paths)
        self.found = dict(zip(unique, zip(paths, found, strict=True), strict=True))
        self.splits = table.splits()

    def usable(self, row: int) -> bool:
        """Whether a row has a class and a readable image; if not, record a fault."""
        name, label, problem = self.names[row], self.labels[row], ""
        if not name or not label:
            problem = "no path" if not name else "no label"
        elif Path(name).suffix.lower() in _SLIDES:
            problem = f"{name} is a slide: its patches need a column annotation with QuPath or ASAP files"
        else:
            fact = self.found[name][1]
            problem = f"{name}: {fact.what}" if isinstance(fact, LabelError) else ""
        if problem:
            self.faults.add(f"row {self.table.numbers[row]}", problem)
        return not problem

    def on_image(self, row: int, point: NDArray[np.float64], spec: LabelSpec) -> bool:
        """Whether a point lies on its image (one pixel past the border is tolerated); if not, record a fault."""
        fact = self.found[self.names[row]][1]
        assert isinstance(fact, ImageFact)
        x, y = (float(value) - spec.point_origin for value in point)
        inside = -1 <= x <= fact.size.width and -1 <= y <= fact.size.height  # false for NaN
        if not inside:
            self.faults.add(
                f"row {self.table.numbers[row]}",
                f"point ({point[0]:g}, {point[1]:g}) on {fact.size.width} x {fact.size.height} pixels",
            )
        return inside

    def rows(self, kept: list[int], noun: str) -> tuple[LabelRows, ImageSet, Rows]:
        """The rows kept, the images they use, and the image of each row."""
        rows = LabelRows()
        rows.notes += self.faults.notes(noun, len(kept))
        number: dict[str, int] = {}
        for row in kept:
            rows.add(self.names[row], self.labels[row], "")
            number.setdefault(self.names[row], len(number))
        used = [self.found[name] for name in number]
        facts = tuple(fact for _, fact in used if isinstance(fact, ImageFact))
        rows.splits = None if self.splits is None else [self.splits[row] for row in kept]
        owners = np.array([number[name] for name in rows.names], np.int64)
        return rows, ImageSet(tuple(path for path, _ in used), facts), owners


def _expanded(name: str) -> Path:
    """A path with ~ expanded, if that is a home folder."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _fill_groups(
    rows: LabelRows,
    table: LabelTable,
    kept: list[int],
    images: ImageSet,
    owners: Rows,
    spec: LabelSpec,
) -> None:
    """Groups from the column, else from the pattern, else one per image."""
    if "group" in table.columns:
        cells = table.cells("group")
        rows.groups = [cells[row] or rows.names[i] for i, row in enumerate(kept)]
        empty = sum(not cells[row] for row in kept)
        if empty:
            rows.notes.append(f"{counted(empty, 'row')} without a group: each image counts as its own group")
        return
    if spec.group_pattern:
        rows.groups = group_by_pattern(rows.names, spec.group_pattern, rows.notes)
        return
    rows.groups = list(rows.names)
    note_no_groups(rows)
    join_copies(rows, images.digests, owners.tolist())


def _each(images: ImageSet, owners: Rows) -> tuple[tuple[Path, ...], tuple[ImageFact, ...]]:
    """Paths and facts row by row; an image named twice appears twice."""
    return tuple(images.paths[k] for k in owners), tuple(images.facts[k] for k in owners)
