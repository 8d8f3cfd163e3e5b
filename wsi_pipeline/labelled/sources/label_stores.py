"""Labels from the patch stores of a run: those that have a dataset `labels`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError, StoreError
from wsi_pipeline.labelled.assemble import LabelRows, assemble
from wsi_pipeline.labelled.faults import Faults
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.slide_patches import PatchesOfSlides
from wsi_pipeline.labelled.splits.patch_groups import slide_groups, slide_splits
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import LABELS
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table


def has_labels(run: RunDir, cohort: Cohort) -> bool:
    """Whether any patch store of a run has labels. Stores that cannot be read count as without."""
    return any(_is_labelled(path) for record in cohort.records if (path := _store(run, record)))


def open_labelled_stores(run: RunDir, cohort: Cohort, spec: LabelSpec) -> LabelledPatches:
    """Labelled patches from the patch stores of a run; groups are patients, patches with label -1 are not used.

    Pixels come from the store if it keeps them, else from the slide. Raises LabelError if stores have patches of
    different sizes, or no label can be used.
    """
    faults, rows = Faults(str(run.root)), LabelRows()
    tables: list[tuple[SlideRecord, PatchTable]] = []
    parts: list[PatchFiles] = []
    part_of, patch_of = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for record in cohort.records:
        store = _store(run, record)
        table = None if store is None else _table(store, record, faults)
        if store is None or table is None or table.labels is None:
            continue
        labelled = np.flatnonzero(table.labels.values >= 0)
        part_of.append(np.full(len(labelled), len(parts), np.int64))
        patch_of.append(labelled.astype(np.int64))
        parts.append(PatchFiles.of(table, store, record.path))
        tables.append((record, table))
        for row in labelled.tolist():
            x, y = table.grid.coords[row].tolist()
            rows.add(f"{record.slide_id} ({x}, {y})", table.labels.classes[int(table.labels.values[row])], "")
    rows.notes += faults.notes("labelled slides", len(parts))
    owners = np.concatenate(part_of)
    records = [record for record, _ in tables]
    groups, splits = slide_groups(records, spec, rows.notes), slide_splits(records)
    rows.groups = [groups[k] for k in owners]
    rows.splits = None if splits is None else [splits[k] for k in owners]
    patch_px, mpp = _common(tables)
    key = [table.header.digest for _, table in tables]
    pixels = PatchesOfSlides(tuple(parts), owners, np.concatenate(patch_of), patch_px, mpp, key)
    return assemble(rows, pixels, str(run.root), spec)


def _store(run: RunDir, record: SlideRecord) -> Path | None:
    return existing_store(run.patch_store(record.slide_id))


def _is_labelled(path: Path) -> bool:
    try:
        with open_store(path) as store:
            return LABELS in store.names()
    except StoreError:
        return False


def _table(path: Path, record: SlideRecord, faults: Faults) -> PatchTable | None:
    try:
        return read_patch_table(path)
    except StoreError as error:
        faults.add(record.slide_id, error.what)
        return None


def _common(tables: list[tuple[SlideRecord, PatchTable]]) -> tuple[int, float]:
    """Patch size and resolution, which all stores must share."""
    found = {(table.geometry.patch_px, _mpp(table)) for _, table in tables}
    if len(found) > 1:
        listed = " and ".join(f"{side} px at {mpp:g} mpp" for side, mpp in sorted(found)[:2])
        raise LabelError(
            f"the patch stores of the run differ: {listed}", todo="Run again: wsi-pipeline tile slides.csv"
        )
    return found.pop()


def _mpp(table: PatchTable) -> float:
    """The requested resolution; for imported patches, the delivered one."""
    requested = table.header.specs.get("tile", {}).get("mpp")
    return round(table.geometry.mpp, 2) if requested is None else float(requested)
