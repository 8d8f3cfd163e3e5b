"""Open labelled patches from any kind of source: the entry point of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsi_pipeline.cohort.manifest import Cohort, read_cohort, read_run
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.tables.patient_doubts import doubt_words, image_doubt
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.joined_patches import join_patches
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.sources.annotated_slides import is_annotated, open_annotated
from wsi_pipeline.labelled.sources.annotation_files import ANNOTATION_SUFFIXES
from wsi_pipeline.labelled.sources.csv_files import open_image_csv, open_point_csv
from wsi_pipeline.labelled.sources.folders import is_class_folders, open_class_folders
from wsi_pipeline.labelled.sources.label_stores import has_labels, open_labelled_stores
from wsi_pipeline.labelled.sources.label_table import TABLE_SUFFIXES, read_label_table
from wsi_pipeline.labelled.sources.more_labels import open_more_labels

_KINDS = (
    "Give a folder of class folders, a CSV with path and label, a CSV with image, class, x and y, a CSV of slides "
    "with a column annotation, or a run folder whose patch stores have labels"
)


def open_together(
    sources: Sequence[str | Path],
    spec: LabelSpec | None = None,
    *,
    default_mpp: float | None = None,
    options: TableOptions | None = None,
    no_crop: bool = False,
) -> LabelledPatches:
    """Labelled patches of a main source (see `open_labelled`) and of further CSVs of patches with path, label, group.

    `max_per_class` limits the main source only. Raises LabelError if they do not fit together: see `join_patches`.
    """
    first = open_labelled(sources[0], spec, default_mpp=default_mpp, options=options, no_crop=no_crop)
    if len(sources) == 1:
        return first
    spec = spec or LabelSpec()
    if spec.group_pattern:
        raise LabelError(
            "groups by --group-pattern cannot be matched between several sources of labels",
            todo="Give a column group in each",
        )
    more = [open_more_labels(Path(source).expanduser(), spec) for source in sources[1:]]
    return join_patches([first, *more])


def open_labelled(
    source: str | Path,
    spec: LabelSpec | None = None,
    *,
    default_mpp: float | None = None,
    options: TableOptions | None = None,
    no_crop: bool = False,
) -> LabelledPatches:
    """Labelled patches from any kind of source; pixels are decoded later, on demand.

    source        ROOT/<class>/[<group>/]file (also below train, val, test); CSV path, label[, group][, split];
                  CSV image, class, x, y[, group][, split]; manifest of slides with `annotation`; run with labels
    default_mpp   micrometres per pixel of annotated slides that state none
    options       which patient each slide belongs to, for a CSV of slides or a run
    no_crop       annotations of QuPath count from the corner of the whole slide, not of its bounds

    Raises LabelError in one sentence for anything else, and if no row can be used.
    """
    path, spec, options = Path(source).expanduser(), spec or LabelSpec(), options or TableOptions()
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return _open_table(path, spec, default_mpp, options, no_crop)
    run = RunDir(path.parent if path.name == "tile" else path)
    if path.is_dir() and run.cohort_csv.is_file():
        return _open_run(run, spec, default_mpp, options, no_crop)
    if path.is_dir() and is_class_folders(path):
        if options.patient_column is not None:
            raise LabelError("class folders have no columns", todo="Use --group-pattern to group by file name")
        return _groups_known(open_class_folders(path, spec), options)
    what = "has no class folders of images" if path.is_dir() else "is not a CSV" if path.exists() else "does not exist"
    raise LabelError(f"no labelled patches: {path} {what}", todo=_KINDS)


def _open_run(
    run: RunDir, spec: LabelSpec, default_mpp: float | None, options: TableOptions, no_crop: bool
) -> LabelledPatches:
    """The run's patch stores with labels if there are any, else the annotations of its slides."""
    cohort = _patients_known(read_run(run.cohort_csv, options), spec)
    if has_labels(run, cohort):
        return open_labelled_stores(run, cohort, spec)
    if is_annotated(cohort):
        return open_annotated(cohort, spec, default_mpp, no_crop)
    raise LabelError(
        f"no labelled patches: no patch store of {run.root} has labels, and no slide of it an annotation", todo=_KINDS
    )


def _open_table(
    path: Path, spec: LabelSpec, default_mpp: float | None, options: TableOptions, no_crop: bool
) -> LabelledPatches:
    group_column = options.patient_column if spec.group_column is None else spec.group_column
    table = read_label_table(path, replace(spec, group_column=group_column))
    have = set(table.columns)
    if any(cell.lower().endswith(ANNOTATION_SUFFIXES) for cell in table.cells("annotation")):
        cohort = _patients_known(read_cohort([path], mixed_labels=True, options=options), spec)
        return open_annotated(cohort, spec, default_mpp, no_crop)
    if {"path", "label", "x", "y"} <= have:
        return _groups_known(open_point_csv(table, spec), options)
    if {"path", "label"} <= have:
        return _groups_known(open_image_csv(table, spec), options)
    columns = ", ".join(table.header)
    missing = " and ".join(name for name in ("path", "label") if name not in have)
    raise LabelError(f"{path} has no column {missing}; its columns are {columns}", todo=_KINDS)


def _patients_known(cohort: Cohort, spec: LabelSpec) -> Cohort:
    """The cohort. Raises LabelError if its groups are patients and some slides may share an unnamed patient."""
    if spec.group_column is None and not spec.group_pattern:
        for what, todo in doubt_words(cohort):
            raise LabelError(
                f"{what}. Slides of one patient on both sides of the split invalidate every metric", todo=todo
            )
    return cohort


def _groups_known(patches: LabelledPatches, options: TableOptions) -> LabelledPatches:
    """The patches. Raises LabelError if images that each count as a group have names that suggest one patient."""
    if patches.splits is not None or options.each_slide_a_patient:
        return patches
    alone = [name for name, group in zip(patches.names, patches.groups, strict=True) if group == name]
    if doubt := image_doubt([Path(name).stem for name in dict.fromkeys(alone)]):
        raise LabelError(
            f"no groups are given, and {doubt}. Images of one patient on both sides make every metric wrong",
            todo="Say whose they are: --group-pattern, a folder per patient below the class, or a column group; "
            "or --each-slide-a-patient if no patient has two images",
        )
    return patches
