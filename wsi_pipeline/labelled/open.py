"""Open labelled patches by what they are: the way into this package."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.cohort.manifest import read_cohort
from wsi_pipeline.cohort.rundir import RunDir
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.annotated import is_annotated, open_annotated
from wsi_pipeline.labelled.annotation import ANNOTATION_SUFFIXES
from wsi_pipeline.labelled.csvfiles import open_image_csv, open_point_csv
from wsi_pipeline.labelled.folders import is_class_folders, open_class_folders
from wsi_pipeline.labelled.patches import LabelledPatches
from wsi_pipeline.labelled.stores import has_labels, open_labelled_stores
from wsi_pipeline.labelled.table import TABLE_SUFFIXES, read_label_table
from wsi_pipeline.specs import LabelSpec

_KINDS = (
    "Name a folder of class folders, a CSV with path and label, a CSV with image, class, x and y, a CSV of slides "
    "with a column annotation, or a run folder whose patch stores have labels"
)


def open_labelled(
    source: str | Path, spec: LabelSpec | None = None, *, default_mpp: float | None = None
) -> LabelledPatches:
    """Labelled patches from whatever `source` is; nothing is decoded yet but what must be.

    source        ROOT/<class>/[<group>/]file (also below train, val, test); CSV path, label[, group][, split];
                  CSV image, class, x, y[, group][, split]; manifest of slides with `annotation`; run with labels
    default_mpp   micrometres per pixel of annotated slides that state none

    Raises LabelError in one sentence for anything else, and where no row can be used.
    """
    path, spec = Path(source).expanduser(), spec or LabelSpec()
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return _open_table(path, spec, default_mpp)
    run = RunDir(path.parent if path.name == "tile" else path)
    if path.is_dir() and run.cohort_csv.is_file():
        return _open_run(run, spec, default_mpp)
    if path.is_dir() and is_class_folders(path):
        return open_class_folders(path, spec)
    what = "holds no class folders with images" if path.is_dir() else "is no CSV" if path.exists() else "is not there"
    raise LabelError(f"no labelled patches: {path} {what}", todo=_KINDS)


def _open_run(run: RunDir, spec: LabelSpec, default_mpp: float | None) -> LabelledPatches:
    """Patch stores with labels where there are any, else the annotations of the run's slides."""
    cohort = read_cohort([run.cohort_csv], mixed_labels=True)
    if has_labels(run, cohort):
        return open_labelled_stores(run, cohort, spec)
    if is_annotated(cohort):
        return open_annotated(cohort, spec, default_mpp)
    raise LabelError(
        f"no labelled patches: no patch store of {run.root} has labels, and no slide of it an annotation", todo=_KINDS
    )


def _open_table(path: Path, spec: LabelSpec, default_mpp: float | None) -> LabelledPatches:
    table = read_label_table(path, spec)
    have = set(table.columns)
    if any(cell.lower().endswith(ANNOTATION_SUFFIXES) for cell in table.cells("annotation")):
        return open_annotated(read_cohort([path], mixed_labels=True), spec, default_mpp)
    if {"path", "label", "x", "y"} <= have:
        return open_point_csv(table, spec)
    if {"path", "label"} <= have:
        return open_image_csv(table, spec)
    columns = ", ".join(table.header)
    missing = " and ".join(name for name in ("path", "label") if name not in have)
    raise LabelError(f"{path} has no column {missing}; its columns are {columns}", todo=_KINDS)
