"""Stage `report`: collect the results of a run and write report/report.html, one self-contained file."""

from __future__ import annotations

import datetime
import logging
import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.cohort.slide_status import SlideStatus, read_status
from wsi_pipeline.report.data import (
    ClassRow,
    ClassSection,
    ModelSection,
    PredictionSection,
    Provenance,
    ReportData,
    SlideRow,
    TuningSection,
)
from wsi_pipeline.report.maps.pictures import shrink_png
from wsi_pipeline.report.page.html import render_report
from wsi_pipeline.report.page.quality_view import quality_csv
from wsi_pipeline.report.page.target_view import side_by_side, to_csv
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.outputs.quality_rows import quality_fields
from wsi_pipeline.stages.outputs.report_pictures import SlidePictures
from wsi_pipeline.stages.results.fractions import classified, gather_fractions
from wsi_pipeline.stages.results.prediction_files import METRICS, PATIENTS, read_json, read_predictions
from wsi_pipeline.stages.results.robustness_files import read_results
from wsi_pipeline.stages.results.trainings import Training, trainings
from wsi_pipeline.stages.results.tuning_files import CONFUSION, CURVES, SHEET, Tuning, tunings
from wsi_pipeline.store.schema import FEATURE_FORMAT, PATCH_FORMAT, Header
from wsi_pipeline.system.atomic import remove, write_text
from wsi_pipeline.version import __version__

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "timm", "openslide-python", "tiffslide", "h5py", "zarr", "scikit-image", "scikit-learn", "numpy")
_TUNING_PX = 1600
_PART = re.compile(r" --(only|chunk)[ =]('[^']*'|\S+)")
_COMMAND = re.compile(r"INFO\s+(wsi-pipeline .*?)\s{2,}\(wsi-pipeline ")


def write_report(run: RunDir, cohort: Cohort) -> Path:
    """Write the report of a run and return its path. The more slides, the smaller the pictures."""
    models, tuned = trainings(run), tunings(run)
    sections = tuple(_section(training, cohort.patients_stated) for training in models)
    pictures = SlidePictures.of(run, cohort.records, sections, len(classified(run)))
    data = ReportData(
        title=run.root.resolve().parent.name,
        created=datetime.date.today().isoformat(),
        slides=tuple(
            _row(run, record, pictures, known=record.slide_id not in cohort.without_patient)
            for record in cohort.records
        ),
        models=sections,
        warnings=tuple(str(note) for note in cohort.notes),
        provenance=_provenance(run, cohort.records, models, tuned),
        tunings=tuple(_tuning(tuning) for tuning in tuned),
        classified=tuple(filter(None, (_classes(run, name, cohort.records, pictures) for name in classified(run)))),
        predictions=_predictions(run),
        robustness=tuple(read_results(run)),
        pictures_note=pictures.note(len(cohort), len(models)),
    )
    groups = side_by_side(sections)
    if groups:
        write_text(run.targets_csv, to_csv(groups))
    else:
        remove(run.targets_csv)
    if any(slide.quality for slide in data.slides):
        write_text(run.quality_csv, quality_csv(data.slides))
    else:
        remove(run.quality_csv)
    write_text(run.report_html, render_report(data))
    return run.report_html


def _row(run: RunDir, record: SlideRecord, pictures: SlidePictures, *, known: bool) -> SlideRow:
    status = read_status(run.status(record.slide_id), record.slide_id)
    state, stage, reason, todo, traceback = _state_of(status)
    tile = status.stages.get("tile")
    summary: dict[str, Any] = tile.summary if tile else {}
    notes = dict.fromkeys(item.note for item in status.stages.values() if item.note)
    return SlideRow(
        slide_id=record.slide_id,
        state=state,
        patient_id=record.patient_id if known else None,
        label=record.label,
        site=record.site,
        stage=stage,
        reason=reason,
        todo=todo,
        traceback=traceback,
        note="; ".join([*notes, *(["resampled"] if summary.get("resampled") else [])]) or None,
        patches=summary.get("patches"),
        tissue_mm2=summary.get("tissue_mm2"),
        mpp=summary.get("mpp"),
        mpp_source=summary.get("mpp_source"),
        **pictures.fields(record),
        **quality_fields(run, record.slide_id, picture=record.slide_id in pictures.chosen),
    )


def _state_of(status: SlideStatus) -> tuple[str, str | None, str | None, str | None, str | None]:
    """State, stage, reason, todo and traceback that summarise a slide."""
    if status.failed:
        stage, item = status.failed
        return "failed", stage, item.reason, item.todo or None, item.traceback or None
    if not status.stages:
        return "pending", None, None, None, None
    if any(item.state == "empty" for item in status.stages.values()):
        return "empty", "tile", None, None, None
    return "done", list(status.stages)[-1], None, None, None


def _predictions(run: RunDir) -> tuple[PredictionSection, ...]:
    """Predictions of trained models for this run's slides; a damaged table is skipped."""
    found = []
    for path in sorted((run.root / "predict").glob("*/*/predictions.csv")):
        try:
            table, others = read_predictions(path), path.with_name(PATIENTS)
            patients = read_predictions(others) if others.is_file() else None
        except (OSError, ValueError) as error:
            logger.warning("%s left out of the report: %s", path, error)
            continue
        metrics = read_json(path.with_name(METRICS)) or {}
        found.append(PredictionSection("/".join(path.parts[-3:-1]), table, metrics, patients))
    return tuple(found)


def _classes(run: RunDir, folder: str, records: Sequence[SlideRecord], pictures: SlidePictures) -> ClassSection | None:
    headers = gather_fractions(run, folder, records).headers
    if not headers:
        return None
    first = next(iter(headers.values())).extra
    rows = tuple(
        _class_row(slide_id, header, pictures.small(run.class_overlay(folder, slide_id)))
        for slide_id, header in headers.items()
    )
    notes = dict.fromkeys(str(header.extra["fit_note"]) for header in headers.values() if header.extra.get("fit_note"))
    return ClassSection(
        str(first["encoder"]["name"]), str(first["adapter"]), tuple(first["classes"]), rows, tuple(notes)
    )


def _class_row(slide_id: str, header: Header, overlay: bytes | None) -> ClassRow:
    extra = header.extra
    shown = overlay if extra["patches"] else None
    return ClassRow(slide_id, int(extra["patches"]), dict(extra["fractions"]), float(extra["unclear"]), shown)


def _picture(path: Path, side: int) -> bytes | None:
    return shrink_png(path.read_bytes(), side) if path.is_file() else None


def _section(training: Training, patients: str) -> ModelSection:
    encoder, model = training.folder.parts[-2:]
    metrics = {"patients": patients, **training.metrics}
    return ModelSection(encoder, model, metrics, training.predictions, training.histories)


def _tuning(tuning: Tuning) -> TuningSection:
    curves, confusion, sheet = (_picture(tuning.folder / name, _TUNING_PX) for name in (CURVES, CONFUSION, SHEET))
    return TuningSection(tuning.name, tuning.metrics, curves, confusion, sheet)


def _provenance(
    run: RunDir, records: Sequence[SlideRecord], models: Sequence[Training], tuned: Sequence[Tuning]
) -> Provenance:
    folders = [("/".join(training.folder.parts[-3:]), training.metrics) for training in models]
    folders += [("/".join(tuning.folder.parts[-2:]), tuning.metrics) for tuning in tuned]
    specs = {f"tune {tuning.name}": (tuning.metrics.get("specs") or {}).get("tune", {}) for tuning in tuned}
    digests = {name: str(metrics.get("digest", "")) for name, metrics in folders}
    return Provenance(commands(run), _versions(), {**_specs(run, records), **specs}, digests)


def commands(run: RunDir) -> tuple[str, ...]:
    """The commands run on this run, in the order of their first call, from its log.

    The part of the cohort that a job worked on (--only, --chunk) is left out: on a cluster there are thousands.
    """
    if not run.log.is_file():
        return ()
    called = _COMMAND.findall(run.log.read_text(encoding="utf-8", errors="replace"))
    return tuple(dict.fromkeys(_PART.sub("", command) for command in called))


def _specs(run: RunDir, records: Sequence[SlideRecord]) -> dict[str, dict[str, Any]]:
    """The settings of segment, tile and each encoder, read from the stores of the first slide that has them."""
    specs: dict[str, dict[str, Any]] = {}
    for encoder in run.encoders():
        header = _first_header([run.feature_store(encoder, record.slide_id) for record in records], FEATURE_FORMAT)
        if header:
            of_it = (header.specs.get(name) for name in ("embed-slides", "embed", "import"))
            specs[f"embed {encoder}"] = next(filter(None, of_it), {})
    header = _first_header([run.patch_store(record.slide_id) for record in records], PATCH_FORMAT)
    return {**(header.specs if header else {}), **specs}


def _first_header(paths: Sequence[Path], wanted: str) -> Header | None:
    for path in paths:
        found = existing_store(path)
        header = read_header(found, wanted) if found else None
        if header:
            return header
    return None


def _versions() -> dict[str, str]:
    found = {"wsi-pipeline": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
