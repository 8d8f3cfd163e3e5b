"""Slides written in the formats of other tools, with the tables of the cohort beside them.

A digest of the source stores tells which slides are done (`exchange.writers.export_files`), so an interrupted export
continues, and a repeated one writes only what has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store, require_store
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.cohort.table_words import in_order
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.exchange.writers.export_files import Ledger
from wsi_pipeline.exchange.writers.export_formats import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.engine.known_files import look_up
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.qupath_origin import origin_in_run
from wsi_pipeline.stages.engine.runner import CohortResult, Freshness, StageResult, run_cohort
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import COORDS, FEATURE_FORMAT, PATCH_FORMAT, Header
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.store.tables.patch_labels import read_labels
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table
from wsi_pipeline.store.tables.segment_table import SegmentTable, read_segment_table
from wsi_pipeline.wording import counted, listed

REVISION = 2
"""Raised when an export is written in another way from the same stores."""


@dataclass(frozen=True)
class ExportSettings:
    """The format to export to, and its options.

    to           name of the format, one of EXPORT_FORMATS
    encoder      folder name under embed/; "" for formats without features
    precision    data type of the features: float32 or float16
    max_patches  maximum number of patch images per slide, in formats with images; 0: all
    no_crop      coordinates from the corner of the whole slide, for QuPath set to show slides uncropped
    """

    to: str
    encoder: str = ""
    precision: str = "float32"
    max_patches: int = 0
    no_crop: bool = False


@dataclass
class ExportSlidesStage:
    """Writes slides of a run in one format.

    classes   class names in the order of their numbers
    """

    run_dir: RunDir
    folder: Path
    settings: ExportSettings
    classes: tuple[str, ...] = ()

    @property
    def format(self) -> ExportFormat:
        """The format that writes the files."""
        return EXPORT_FORMATS.get(self.settings.to)

    @property
    def name(self) -> str:
        """`export/<format>`."""
        return f"export/{self.settings.to}"

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the slide was exported from these stores and its files exist."""
        digest = self._digest(record)
        if Ledger(self.folder).done(record.slide_id, digest):
            return Freshness(True, status=StageStatus("done", digest=digest))
        return Freshness(False)

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Write one slide."""
        digest, content = self._digest(record), self._content(record)
        count = len(content.coords)
        if count == 0 and not self.format.empty:
            Ledger(self.folder).record(record.slide_id, digest, [])
            return StageStatus("empty", note="no patches: not exported", digest=digest)
        files = self.format.write(content, self.folder)
        Ledger(self.folder).record(record.slide_id, digest, files)
        return StageStatus("done" if count else "empty", digest=digest, summary={"patches": count})

    def ready(self, record: SlideRecord) -> bool:
        """Whether the run has the stores that this slide's export needs."""
        return existing_store(self._place(record)) is not None

    def dim(self, record: SlideRecord) -> int:
        """Features per patch, read from a store; 0 if none are exported."""
        store = existing_store(self._place(record)) if self.settings.encoder else None
        header = read_header(store, FEATURE_FORMAT) if store is not None else None
        return int(header.extra["encoder"]["dim"]) if header is not None else 0

    def _place(self, record: SlideRecord) -> Path:
        if self.settings.encoder:
            return self.run_dir.feature_store(self.settings.encoder, record.slide_id)
        return self.run_dir.patch_store(record.slide_id)

    def _source(self, record: SlideRecord) -> Path:
        made_by = f"embed --model {self.settings.encoder}" if self.settings.encoder else "tile slides.csv"
        return require_store(self._place(record), made_by)

    def _content(self, record: SlideRecord) -> SlideContent:
        source = self._source(record)
        features = read_feature_table(source) if self.settings.encoder else None
        store = existing_store(self.run_dir.patch_store(record.slide_id))
        patches = read_patch_table(store) if store else None
        if features is not None and (patches is None or patches.header.digest != features.header.parent_digest):
            patches, store = None, None
        return SlideContent(
            record,
            features,
            patches,
            store,
            self._segment(record, patches),
            self._code(record),
            self.settings.precision,
            origin_in_run(self.run_dir, record.slide_id, self.settings.no_crop),
            self.settings.max_patches,
        )

    def _segment(self, record: SlideRecord, patches: PatchTable | None) -> SegmentTable | None:
        """Tissue and thumbnail, if the patches were laid over them."""
        path = existing_store(self.run_dir.segment_store(record.slide_id))
        found = read_segment_table(path) if path else None
        if found is None or patches is None or found.header.digest != patches.header.parent_digest:
            return None
        return found

    def _code(self, record: SlideRecord) -> int | None:
        return self.classes.index(record.label) if record.label in self.classes else None

    def _digest(self, record: SlideRecord) -> str:
        header = read_header(self._source(record), FEATURE_FORMAT if self.settings.encoder else PATCH_FORMAT)
        store = existing_store(self.run_dir.patch_store(record.slide_id))
        tile, labels = look_up(store, "labels", lambda: _labels_in(store)) if store else ("", None)
        facts: dict[str, Any] = {
            "source": header.digest if header else "",
            "tile": tile,
            "patch_labels": labels,
            "label": record.label,
            "patient": record.patient_id,
            "code": self._code(record) if self.format.labels else None,
            "precision": self.settings.precision,
            "most": self.settings.max_patches,
            "no_crop": self.settings.no_crop,
        }
        return digest_of(stage="export", revision=REVISION, to=self.settings.to, layout=self.format.layout, **facts)


def _labels_in(path: Path) -> tuple[str, tuple[list[int], tuple[str, ...]] | None]:
    """Digest of a patch store, and its labels with their classes if it has any."""
    with open_store(path) as store:
        header = Header.parse(store.attrs, PATCH_FORMAT, path)
        labels = read_labels(store, store.shape(COORDS)[0], path)
    return header.digest, (labels.values.tolist(), labels.classes) if labels else None


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    written   slides in the export, written now or by an earlier call
    empty     slides without patches, left out
    missing   slides with nothing to export
    next      what to do next, one line
    notes     sentences for the user
    """

    result: CohortResult
    folder: Path
    written: tuple[str, ...]
    empty: tuple[str, ...]
    missing: tuple[str, ...]
    next: str
    notes: list[str] = field(default_factory=list)


def export_slides(
    run: RunDir,
    records: Sequence[SlideRecord],
    cohort: Sequence[SlideRecord],
    settings: ExportSettings,
    *,
    folder: Path | None = None,
    on_result: Callable[[list[StageResult]], None] = lambda results: None,
) -> Exported:
    """Write `records` in one format; the tables list all slides of `cohort` that are in the folder.

    folder   where to write; None: export/<format> in the run folder

    A slide that cannot be exported does not stop the others. Raises UsageError if the folder holds another export.
    """
    format_ = EXPORT_FORMATS.get(settings.to)
    encoder = settings.encoder if format_.needs == "features" else ""
    settings = replace(settings, encoder=encoder)
    folder = folder or run.export(settings.to, encoder)
    classes = in_order(record.label for record in cohort if record.label is not None)
    stage = ExportSlidesStage(run, folder, settings, classes)
    Ledger(folder).begin(to=settings.to, encoder=encoder or "none", precision=settings.precision)
    ready = [record for record in records if stage.ready(record)]
    result = run_cohort([stage], run, ready, workers=0, on_result=on_result)
    failed = {item.slide_id for item in result.failed}
    done = {item.slide_id for item in result.results} - failed
    there = [r for r in cohort if r.slide_id in done or (r.slide_id not in failed and _is_there(stage, r))]
    empty = {name for name in (record.slide_id for record in there) if not Ledger(folder).files(name)}
    there = [record for record in there if record.slide_id not in empty]
    content = CohortContent(_table(there, classes), classes, encoder, [], stage.dim(there[0]) if there else 0)
    line = format_.finish(content, folder) if there else ""
    missing = tuple(record.slide_id for record in records if record not in ready)
    written = tuple(record.slide_id for record in there)
    if former := sorted(set(Ledger(folder).holding()) - set(written)):
        content.notes.append(
            f"{folder} also holds files of {counted(len(former), 'slide')} exported before: {listed(former)}. The "
            "tables leave them out; delete the folder and export again if the other tool reads all files"
        )
    return Exported(result, folder, written, tuple(sorted(empty)), missing, line, content.notes)


def _is_there(stage: ExportSlidesStage, record: SlideRecord) -> bool:
    """Whether the folder holds the slide as exported from its current stores; False if a store is damaged."""
    try:
        return stage.ready(record) and stage.check(record).fresh
    except (WsiPipelineError, OSError):
        return False


def _table(records: Sequence[SlideRecord], classes: tuple[str, ...]) -> pd.DataFrame:
    codes = {name: code for code, name in enumerate(classes)}
    columns = {
        "slide_id": [record.slide_id for record in records],
        "patient_id": [record.patient_id for record in records],
        "label": [record.label for record in records],
        "code": pd.array([codes.get(record.label or "") for record in records], dtype="Int64"),
        "time": [record.time for record in records],
        "event": pd.array([record.event for record in records], dtype="Int64"),
        "site": [record.site for record in records],
        "split": [record.split for record in records],
    }
    return pd.DataFrame(columns)
