"""Further labels beside the main source: CSVs of patch images, such as the suggestions of `tune --suggest`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_pipeline.cohort.tables import cells
from wsi_pipeline.cohort.tables.columns import normalise
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.assemble import named_classes
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.sources.csv_files import open_image_csv
from wsi_pipeline.labelled.sources.label_table import TABLE_SUFFIXES, LabelTable, read_label_table

_SLIDE = ("slide_id", "slide")


def open_more_labels(path: Path, spec: LabelSpec) -> LabelledPatches:
    """Labelled patches from a CSV with path, label and optionally group and mpp; one class is enough.

    Rows without a label are left out, so a list that is only partly filled in can be used. Of `spec`, the choice of
    classes and columns applies. Raises LabelError for any other kind of source, for patches without a group, and if no
    row can be used.
    """
    if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
        raise LabelError(
            f"{path}: further sources of labels must be CSVs of patches",
            todo="Name the main source first, then lists with path, label and group, as tune --suggest writes them",
        )
    table = read_label_table(path, spec)
    if not {"path", "label"} <= set(table.columns) or {"x", "y"} <= set(table.columns) or not _groups(table, spec):
        raise LabelError(
            f"{path}: a further source of labels needs the columns path, label and group, one patch image a row; its "
            f"columns are {', '.join(table.header)}"
        )
    own = replace(spec, classes=None, drop_classes=None, max_per_class=0, resize_px=0, image_mpp=_mpp(table))
    patches = open_image_csv(table, own, least_classes=1)
    wanted = (set(named_classes(spec.classes)) or set(patches.classes)) - set(named_classes(spec.drop_classes))
    kept = [row for row, code in enumerate(patches.labels.tolist()) if patches.classes[code] in wanted]
    return patches.take(np.array(kept, np.int64))


def _groups(table: LabelTable, spec: LabelSpec) -> bool:
    """Whether a column states groups. A slide is none unless asked for: the main source may group by patient."""
    place = table.columns.get("group")
    return place is not None and (spec.group_column is not None or normalise(table.header[place]) not in _SLIDE)


def _mpp(table: LabelTable) -> float | None:
    """The one value of a column mpp; None without the column. Raises LabelError for several values."""
    place = next((number for number, name in enumerate(table.header) if normalise(name) == "mpp"), None)
    if place is None:
        return None
    found = {_number(row[place]) for row in table.rows if row[place]}
    if len(found) > 1 or not all(math.isfinite(value) and value > 0 for value in found):
        raise LabelError(f"{table.path}: the column mpp must hold one number, the same in all rows")
    return found.pop() if found else None


def _number(cell: str) -> float:
    try:
        return cells.number(cell)
    except ValueError:
        return math.nan
