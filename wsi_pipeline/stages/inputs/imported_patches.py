"""Import coordinates of another tool as patch stores: tile/<slide_id>.h5. Each is checked against its slide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.errors import ExchangeError
from wsi_pipeline.exchange.readers.foreign_file import ForeignFile
from wsi_pipeline.exchange.readers.imported_rows import place, settings_of
from wsi_pipeline.files.addresses import may_exist
from wsi_pipeline.slides.inspect.identity import quick_digest
from wsi_pipeline.slides.slide_info import SlideInfo, check_upright
from wsi_pipeline.slides.spacing import spacing_of
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.engine.guards import drop_other_format, identity_of
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.qupath_origin import ORIGIN
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.stages.inputs.import_plan import ImportPlan
from wsi_pipeline.store.schema import IMPORTED, PATCH_FORMAT, Header
from wsi_pipeline.store.tables.patch_table import write_patches
from wsi_pipeline.tiling.grid import PatchGrid

REVISION = 1
FAR_MPP = 1.25
"""Factor between the mpp that patches have and the one that their file states, above which they are refused."""
_NOMINAL_MPP = 10.0
"""Micrometres per pixel at 1x, nominally: 20x is 0.5."""
_FAR_NOMINAL = 1.5
NO_SIZE = "Name files that state it: patches/*_patches.h5 of TRIDENT, patches/*.h5 of CLAM."


@dataclass(frozen=True)
class ImportPatches:
    """Imports the patches of slides by a plan; the slide files must exist."""

    run_dir: RunDir
    plan: ImportPlan
    default_mpp: float | None = None
    store: str = "hdf5"
    name: str = "tile"

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the store has the digest of this file and this slide."""
        self._refuse(record)
        header = read_header(self._path(record), PATCH_FORMAT)
        if header is not None and may_exist(record.path) and header.digest == self._digest(record):
            return Freshness(True, status=_status(header))
        return Freshness(False, "other patches were there" if header else "")

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Import one slide. Raises ExchangeError if patches do not fit the slide, SlideError if it cannot be read."""
        self._refuse(record)
        file = self.plan.files[record.slide_id]
        opened = slide.open()
        info, spacing = opened.info, spacing_of(opened.info, record.mpp, self.default_mpp)
        check_upright(info, "patches")
        placed = place(file, None, info, float(spacing.mpp))
        geometry, stated = placed.geometry, file.stated
        if not geometry.patch_px or not geometry.patch_level0:
            raise ExchangeError(f"{file.path.name} does not state how large its patches are", todo=NO_SIZE)
        doubt = _mpp_note(file, geometry.mpp)
        header = Header(
            PATCH_FORMAT,
            digest=self._digest(record),
            parent_digest="",
            slide=identity_of(record, opened, spacing),
            specs={"import": settings_of(stated)},
            extra={
                "revision": REVISION,
                "warning": "; ".join(part for part in (placed.note, doubt, spacing.note) if part),
                "patches": len(placed.coords),
                "mpp": geometry.mpp,
                "resampled": geometry.resampled,
                IMPORTED: {
                    "tool": stated.tool,
                    "version": stated.version,
                    "file": file.path.name,
                    "coords": placed.frame,
                    **_origin(info),
                },
            },
        )
        write_patches(self._path(record), header, geometry, PatchGrid(placed.coords, _coverage(file)))
        drop_other_format(self._path(record))
        return _status(header)

    def _refuse(self, record: SlideRecord) -> None:
        if record.slide_id in self.plan.faults:
            raise self.plan.faults[record.slide_id].with_traceback(None)

    def _path(self, record: SlideRecord) -> Path:
        return self.run_dir.patch_store(record.slide_id, self.store)

    def _digest(self, record: SlideRecord) -> str:
        file = self.plan.files[record.slide_id]
        return digest_of(
            stage="import patches",
            revision=REVISION,
            file=quick_digest(file.path),
            stated=file.stated.known(),
            slide=[quick_digest(record.path), record.mpp, self.default_mpp],
        )


def _origin(info: SlideInfo) -> dict[str, Any]:
    return {ORIGIN: list(info.origin)} if any(info.origin) else {}


def _coverage(file: ForeignFile) -> NDArray[np.float32]:
    """Tissue fraction of each patch as given in the file; NaN if it gives none."""
    if file.coverage is None:
        return np.full(file.rows, np.nan, np.float32)
    return np.asarray(file.coverage(), np.float32)


def _mpp_note(file: ForeignFile, mpp: float) -> str:
    """A note on an unusual resolution of patches. Raises ExchangeError if it differs from the stated one."""
    stated, magnification = file.stated.mpp, file.stated.magnification
    if stated and not 1 / FAR_MPP <= mpp / stated <= FAR_MPP:
        raise ExchangeError(
            f"patches of {file.path.name} have {mpp:.4g} micrometres per pixel on this slide, "
            f"but their file states {stated:.4g}",
            todo="Check which slide they belong to, and the slide's mpp.",
        )
    nominal = _NOMINAL_MPP / magnification if magnification else mpp
    if 1 / _FAR_NOMINAL <= mpp / nominal <= _FAR_NOMINAL:
        return ""
    return f"the file states {magnification:g}x for patches of {mpp:.4g} micrometres per pixel"


def _status(header: Header) -> StageStatus:
    extra = header.extra
    summary = {key: extra[key] for key in ("patches", "mpp", "resampled")} | {"mpp_source": header.slide.mpp_source}
    note = str(extra.get("warning", ""))
    return StageStatus("done" if extra["patches"] else "empty", note=note, digest=header.digest, summary=summary)
