"""Import features of another tool as feature stores: embed/<encoder>/<slide_id>.h5. Runs like the stage `embed`.

The slide file is read only if it exists, for its size, resolution and digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import POOLED_MARK, RunDir, slug
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.errors import SlideError
from wsi_pipeline.exchange.readers.foreign_file import ForeignFile
from wsi_pipeline.exchange.readers.imported_rows import (
    check_features,
    joined_statement,
    place,
    settings_of,
    unknown_slide,
)
from wsi_pipeline.files.addresses import may_exist
from wsi_pipeline.slides.inspect.identity import quick_digest
from wsi_pipeline.slides.slide_info import SlideInfo, check_upright
from wsi_pipeline.slides.spacing import Spacing, spacing_of
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.engine.guards import drop_other_format, identity_of
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.qupath_origin import ORIGIN
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.stages.inputs.import_plan import ImportPlan
from wsi_pipeline.store.schema import FEATURE_FORMAT, IMPORTED, POOLED, Header, SlideIdentity
from wsi_pipeline.store.tables.feature_table import write_features

REVISION = 1
"""Raised by one whenever the same file gives different content, so that it is imported again."""


@dataclass(frozen=True)
class KnownSlide:
    """Facts about the slide of a record, if its file exists and opens.

    mpp    the resolution used, None if not stated
    note   anything unusual, or why the file cannot be used
    """

    identity: SlideIdentity | None = None
    info: SlideInfo | None = None
    mpp: float | None = None
    note: str = ""


@dataclass(frozen=True)
class ImportFeatures:
    """Imports slides by a plan; a slide with a fault fails, with the fault as its message.

    default_mpp   resolution of slides that state none
    """

    run_dir: RunDir
    plan: ImportPlan
    default_mpp: float | None = None
    store: str = "hdf5"

    @property
    def name(self) -> str:
        """`embed/<encoder>`."""
        return f"embed/{slug(self.plan.encoder)}"

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the store has the digest of these files and of this slide."""
        self._refuse(record)
        header = read_header(self._path(record), FEATURE_FORMAT)
        if header is not None and header.digest == self._digest(record):
            return Freshness(True, status=_status(header))
        own = header is not None and IMPORTED not in header.extra
        reason = "imported in place of features computed here" if own else "its file has changed"
        return Freshness(False, reason if header is not None else "")

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Import one slide; the store is written last."""
        self._refuse(record)
        file, beside = self._files(record)
        known = look_at(record, file.path, slide, self.default_mpp)
        features = check_features(file, self.plan.dim if file.rows else None)
        if not file.rows:
            features = np.zeros((0, self.plan.dim), np.float32)
        placed = place(file, beside, known.info, known.mpp)
        stated = joined_statement(file, beside)
        imported: dict[str, Any] = {
            "tool": stated.tool,
            "version": stated.version,
            "file": file.path.name,
            "coords": placed.frame,
            "coords_file": beside.path.name if beside and file.coords is None else "",
            "encoder_stated_by": self.plan.stated_by,
            "content": digest_of(file=quick_digest(file.path)),
            **({ORIGIN: list(known.info.origin)} if known.info and any(known.info.origin) else {}),
        }
        header = Header(
            FEATURE_FORMAT,
            digest=self._digest(record),
            parent_digest="",
            slide=known.identity or unknown_slide(record.slide_id, stated),
            specs={"import": settings_of(stated)},
            extra={
                "revision": REVISION,
                "patches": len(features),
                "encoder": {"name": self.plan.encoder, "dim": self.plan.dim, "fingerprint": ""},
                "warning": "; ".join(part for part in (placed.note, known.note) if part),
                IMPORTED: imported,
                **pooled_of(file, self.plan.encoder),
            },
        )
        write_features(self._path(record), header, placed.geometry, placed.coords, features)
        drop_other_format(self._path(record))
        return _status(header)

    def _refuse(self, record: SlideRecord) -> None:
        if record.slide_id in self.plan.faults:
            raise self.plan.faults[record.slide_id].with_traceback(None)

    def _files(self, record: SlideRecord) -> tuple[ForeignFile, ForeignFile | None]:
        return self.plan.files[record.slide_id], self.plan.beside.get(record.slide_id)

    def _path(self, record: SlideRecord) -> Path:
        return self.run_dir.feature_store(self.plan.encoder, record.slide_id, self.store)

    def _digest(self, record: SlideRecord) -> str:
        file, beside = self._files(record)
        there = slide_is_there(record, file.path)
        return digest_of(
            stage="import",
            revision=REVISION,
            encoder=self.plan.encoder,
            file=quick_digest(file.path),
            stated=joined_statement(file, beside).known(),
            coords=quick_digest(beside.path) if beside else "",
            slide=[quick_digest(record.path), record.mpp, self.default_mpp] if there else [],
        )


def pooled_of(file: ForeignFile, name: str) -> dict[str, Any]:
    """What the header of a slide embedding says about the patches it pools; empty for patch features.

    patches   number of patches, 0 if not stated
    """
    if file.pools is None:
        return {}
    return {POOLED: {"encoder": name.partition(POOLED_MARK)[0], "patches": file.pools}}


def slide_is_there(record: SlideRecord, file: Path) -> bool:
    """Whether the path of a record names a slide, and not, for a missing slide, its feature file."""
    return record.path != file and may_exist(record.path)


def look_at(record: SlideRecord, file: Path, slide: OpenOnce, default_mpp: float | None) -> KnownSlide:
    """Facts about the slide of a record. The file may be missing; one that does not open is noted.

    Raises SlideError for a slide that is displayed rotated, because its coordinates would be ambiguous.
    """
    if not slide_is_there(record, file):
        return KnownSlide()
    try:
        opened = slide.open()
    except (SlideError, OSError) as error:
        return KnownSlide(note=f"the slide does not open: {error.what if isinstance(error, SlideError) else error}")
    check_upright(opened.info, "patches")
    spacing: Spacing | None = None
    note = ""
    try:
        spacing = spacing_of(opened.info, record.mpp, default_mpp)
        note = spacing.note
    except SlideError as error:
        note = error.what
    return KnownSlide(identity_of(record, opened, spacing), opened.info, float(spacing.mpp) if spacing else None, note)


def with_paths(records: Mapping[str, SlideRecord], plan: ImportPlan) -> dict[str, SlideRecord]:
    """The records, in which a missing slide has the path of its feature file."""
    return {
        one: replace(record, path=plan.files[one].path) if one in plan.files and not may_exist(record.path) else record
        for one, record in records.items()
    }


def _status(header: Header) -> StageStatus:
    count, note = int(header.extra["patches"]), str(header.extra.get("warning", ""))
    return StageStatus("done" if count else "empty", note=note, digest=header.digest, summary={"patches": count})
