"""Quality in a patch store: the measures of each patch with their units, and the patches left out as artefacts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import StoreError, WsiPipelineError
from wsi_pipeline.quality.measures import ARTEFACTS
from wsi_pipeline.quality.patch_quality import PatchQuality, artefact_of
from wsi_pipeline.store.files import amend_store
from wsi_pipeline.store.schema import DROPPED, QUALITY, ROWS_PER_CHUNK, Header
from wsi_pipeline.store.store import ArraySpec, Store, StoreWriter
from wsi_pipeline.tiling.resolve import PatchGeometry

NAMES, UNITS, REASONS = "names", "units", "reasons"


@dataclass(frozen=True, eq=False)
class DroppedPatches:
    """Patches left out: coords int64 (M, 2) in level-0 pixels, and `why` int64 (M,), indices into `reasons`."""

    coords: NDArray[np.int64]
    why: NDArray[np.int64]
    reasons: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Patches by reason, most first."""
        found = [(name, int(np.count_nonzero(self.why == index))) for index, name in enumerate(self.reasons)]
        return dict(sorted([item for item in found if item[1]], key=lambda item: -item[1]))


@dataclass(frozen=True, eq=False)
class FlaggedPatches:
    """Patches beyond a limit, first those that were kept, then those left out.

    coords   int64 (M, 2), top-left corners in level-0 pixels
    kind     int64 (M,), index into ARTEFACTS
    value    float32 (M,), of the measure that is beyond its limit; NaN for patches without edges, which have no focus,
             and for patches left out, whose values are not kept
    kept     how many of the M were kept
    of       number of all patches, kept and left out
    """

    coords: NDArray[np.int64]
    kind: NDArray[np.int64]
    value: NDArray[np.float32]
    kept: int
    of: int

    @classmethod
    def among(
        cls,
        coords: NDArray[np.int64],
        geometry: PatchGeometry,
        quality: PatchQuality | None,
        dropped: DroppedPatches | None,
    ) -> FlaggedPatches:
        """Of the patches at `coords` (N, 2) and of those left out."""
        rows, kind = np.zeros(0, np.int64), np.zeros(0, np.int64)
        value = np.zeros(0, np.float32)
        if quality is not None and len(quality):
            found = artefact_of(quality, geometry.mpp, geometry.scan_mpp)
            rows = np.flatnonzero(found >= 0)
            kind = found[rows].astype(np.int64)
            columns = np.stack([quality.column(measure.name) for measure in ARTEFACTS])
            value = columns[kind, rows]
        places, kept, total = [coords[rows]], len(rows), len(coords)
        if dropped is not None:
            words = [measure.artefact for measure in ARTEFACTS]
            known = np.array([words.index(name) if name in words else -1 for name in dropped.reasons], np.int64)
            which = known[dropped.why] if len(dropped.why) else np.zeros(0, np.int64)
            total += len(which)
            places.append(dropped.coords[which >= 0])
            kind = np.concatenate([kind, which[which >= 0]])
            value = np.concatenate([value, np.full(np.count_nonzero(which >= 0), np.nan, np.float32)])
        return cls(np.concatenate(places), kind, value, kept, total)

    def counts(self) -> list[int]:
        """Patches of each of ARTEFACTS."""
        return [int(count) for count in np.bincount(self.kind, minlength=len(ARTEFACTS))]


def write_quality(writer: StoreWriter, quality: PatchQuality, dropped: DroppedPatches | None = None) -> None:
    """Write the columns, and the patches left out, into a patch store that is being written."""
    for name in (QUALITY, DROPPED) if dropped is not None else (QUALITY,):
        writer.remove(name)
    attrs = {NAMES: json.dumps(quality.names), UNITS: json.dumps(quality.units)}
    writer.create(ArraySpec(QUALITY, quality.values.shape, "float32", ROWS_PER_CHUNK, attrs=attrs))
    writer.write(QUALITY, 0, quality.values)
    if dropped is not None:
        rows = np.column_stack([dropped.coords, dropped.why]).astype(np.int64)
        attrs = {REASONS: json.dumps(dropped.reasons)}
        writer.create(ArraySpec(DROPPED, rows.shape, "int64", ROWS_PER_CHUNK, attrs=attrs))
        writer.write(DROPPED, 0, rows)


def amend_quality(path: Path, header: Header, quality: PatchQuality) -> None:
    """Replace the columns and the header of the patch store at `path`, atomically; all else stays as it is."""
    with amend_store(path) as writer:
        write_quality(writer, quality)
        writer.set_attrs(header.attrs())


def read_quality(store: Store, count: int, path: Path) -> PatchQuality | None:
    """The columns of an open patch store of `count` patches; None if it has none. Raises StoreError if damaged."""
    if QUALITY not in store.names():
        return None
    names, units = (_texts(store, QUALITY, key, path) for key in (NAMES, UNITS))
    values = store.read(QUALITY)
    if len(values) != count or values.dtype != np.float32:
        raise StoreError(f"{path}: {count} patches but quality {values.dtype} {values.shape}", todo=_AGAIN)
    try:
        return PatchQuality(names, units, values)
    except WsiPipelineError as error:
        raise StoreError(f"{path}: {error.what}", todo=_AGAIN) from None


def read_dropped(store: Store, path: Path) -> DroppedPatches | None:
    """The patches left out of an open patch store; None if artefacts were kept. Raises StoreError if damaged."""
    if DROPPED not in store.names():
        return None
    reasons, rows = _texts(store, DROPPED, REASONS, path), store.read(DROPPED)
    if (
        rows.ndim != 2
        or rows.shape[1] != 3
        or (len(rows) and not 0 <= rows[:, 2].min() <= rows[:, 2].max() < len(reasons))
    ):
        raise StoreError(f"{path}: the patches left out are damaged", todo=_AGAIN)
    return DroppedPatches(rows[:, :2].astype(np.int64), rows[:, 2].astype(np.int64), reasons)


_AGAIN = "Remove the file and run tile again"


def _texts(store: Store, array: str, key: str, path: Path) -> tuple[str, ...]:
    try:
        found = json.loads(store.array_attrs(array)[key])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: {array} lacks its {key} ({error})", todo=_AGAIN) from None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise StoreError(f"{path}: {key} of {array} must be a list of texts, got {found!r}", todo=_AGAIN)
    return tuple(found)
