"""`wp.import_features`, `wp.import_patches`: import files of another tool into a run."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from wsi_pipeline.api.open_run import Run
from wsi_pipeline.cohort.manifest import to_csv
from wsi_pipeline.cohort.run_dir import DEFAULT_RUN, RunDir
from wsi_pipeline.config.execution import CohortOptions, TableOptions
from wsi_pipeline.exchange.readers.find_files import find_files
from wsi_pipeline.stages.engine.runner import run_cohort
from wsi_pipeline.stages.inputs.import_cohort import Given, ImportCohort, import_cohort, require_any
from wsi_pipeline.stages.inputs.import_plan import plan_features, plan_patches
from wsi_pipeline.stages.inputs.imported_features import ImportFeatures
from wsi_pipeline.stages.inputs.imported_patches import ImportPatches
from wsi_pipeline.system.atomic import write_text_if_changed
from wsi_pipeline.wording import listed

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


def import_features(
    files: Paths,
    labels: str | PathLike[str] | None = None,
    *,
    run: str | PathLike[str] = DEFAULT_RUN,
    slides: str | PathLike[str] | None = None,
    encoder: str | None = None,
    label_column: str | None = None,
    patient_column: str | None = None,
    default_mpp: float | None = None,
) -> Run:
    """Import features of TRIDENT, CLAM, STAMP and others into a run, as `wsi-pipeline import features` does.

    files            folders or files
    labels           a table of the slides and their labels; None: the slides of the run, or else one slide per file
    run              run folder, created if it does not exist
    slides           the slides, for checks and pictures: a table, a folder or a glob
    encoder          the encoder of the features, if the files name none or several
    label_column     column of the labels; `patient_column`: column of the patients
    default_mpp      resolution of slides that state none, micrometres per pixel

    A slide that cannot be imported does not stop the others: `table` of the run gives the reason. Raises UsageError
    if no slide can be imported.
    """
    cohort = CohortOptions(default_mpp, label_column=label_column)
    given = _given(files, labels, slides, encoder, cohort, TableOptions(patient_column))
    found = import_cohort(RunDir(Path(run)), plan_features(find_files(given.sources), given.where, encoder), given)
    return _run(ImportFeatures(RunDir(Path(run)), found.plan, default_mpp), found)


def import_patches(
    files: Paths,
    slides: str | PathLike[str] | None = None,
    *,
    run: str | PathLike[str] = DEFAULT_RUN,
    labels: str | PathLike[str] | None = None,
    default_mpp: float | None = None,
) -> Run:
    """Import patch coordinates into a run, checked against each slide, as `wsi-pipeline import patches` does.

    files         folders or files of TRIDENT, CLAM, STAMP, hs2p, AtlasPatch, LazySlide
    slides        a table, a folder or a glob; None: the slides of the run
    labels        a table of the slides and their labels
    default_mpp   resolution of slides that state none, micrometres per pixel

    Raises the same errors as `import_features`.
    """
    given = _given(files, labels, slides, None, CohortOptions(default_mpp), TableOptions())
    found = import_cohort(RunDir(Path(run)), plan_patches(find_files(given.sources), given.where), given)
    return _run(ImportPatches(RunDir(Path(run)), found.plan, default_mpp), found)


def _given(
    files: Paths,
    labels: str | PathLike[str] | None,
    slides: str | PathLike[str] | None,
    encoder: str | None,
    cohort: CohortOptions,
    table: TableOptions,
) -> Given:
    several = [files] if isinstance(files, str | PathLike) else files
    sources = tuple(str(fspath(item)) for item in several)
    labelled, known = (None if item is None else str(fspath(item)) for item in (labels, slides))
    return Given(sources, labelled, known, encoder, listed(sources, 2), "", cohort, table)


def _run(stage: ImportFeatures | ImportPatches, found: ImportCohort) -> Run:
    run = stage.run_dir
    write_text_if_changed(run.cohort_csv, to_csv(found.cohort))
    require_any(run_cohort([stage], run, found.ready(found.cohort.records), workers=0))
    return Run(run.root, found.cohort)
