"""The patch store: where the patches of one slide lie, how much tissue is under each, and optionally their pixels."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files.addresses import slide_path
from wsi_pipeline.quality.patch_quality import PatchQuality
from wsi_pipeline.store.files import create_store, open_store
from wsi_pipeline.store.schema import COORDS, COVERAGE, IMAGES, JPEG, PATCH_FORMAT, ROWS_PER_CHUNK, Header
from wsi_pipeline.store.store import ArraySpec, Store, StoreWriter
from wsi_pipeline.store.tables.patch_labels import PatchLabels, read_labels
from wsi_pipeline.store.tables.quality_columns import (
    DroppedPatches,
    FlaggedPatches,
    read_dropped,
    read_quality,
    write_quality,
)
from wsi_pipeline.tiling.grid import PatchGrid
from wsi_pipeline.tiling.resolve import PatchGeometry
from wsi_pipeline.wording import counted


@dataclass(frozen=True)
class PatchFacts:
    """How many patches a store has, their geometry, and which pixels it keeps (none, jpeg or images): no rows."""

    geometry: PatchGeometry
    count: int
    pixels: str

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> PatchFacts:
        """From what `as_json` returned."""
        return cls(PatchGeometry(**values["geometry"]), values["count"], values["pixels"])


@dataclass(frozen=True, eq=False)
class PatchTable:
    """A patch store without its pixels."""

    header: Header
    geometry: PatchGeometry
    grid: PatchGrid
    pixels: str
    """none, jpeg or images: which pixels the store keeps."""
    labels: PatchLabels | None = None
    quality: PatchQuality | None = None
    dropped: DroppedPatches | None = None
    """Patches that `tile --drop-artefacts` left out; None if it kept them."""

    @property
    def facts(self) -> PatchFacts:
        """What is known of the patches without their rows."""
        return PatchFacts(self.geometry, len(self.grid), self.pixels)

    def flagged(self) -> FlaggedPatches:
        """Patches beyond a limit of quality, kept and left out."""
        return FlaggedPatches.among(self.grid.coords, self.geometry, self.quality, self.dropped)

    def __repr__(self) -> str:
        size = f"{counted(len(self.grid), 'patch')} of {self.geometry.patch_px} px at {self.geometry.mpp:.4g} mpp"
        return f"<PatchTable {self.header.slide.slide_id}: {size}, pixels: {self.pixels}>"


def write_patches(
    path: Path,
    header: Header,
    geometry: PatchGeometry,
    grid: PatchGrid,
    images: Iterable[tuple[int, NDArray[np.uint8]]] | None = None,
    jpegs: Iterable[list[bytes]] | None = None,
    quality: PatchQuality | None = None,
    dropped: DroppedPatches | None = None,
) -> None:
    """Write a patch store at `path`, atomically.

    images   (first row, uint8 (B, P, P, 3)) batches that together cover all rows, in order
    jpegs    lists of JPEGs that together hold one for each row, in order
    quality  measures of the rows; `dropped`: the patches left out because of them
    """
    n, side = len(grid), geometry.patch_px
    with create_store(path) as writer:
        write_coords(writer, grid.coords, coords_attrs(header, geometry))
        writer.create(ArraySpec(COVERAGE, (n,), "float32", ROWS_PER_CHUNK))
        writer.write(COVERAGE, 0, grid.coverage)
        if quality is not None:
            write_quality(writer, quality, dropped)
        if images is not None:
            writer.create(ArraySpec(IMAGES, (n, side, side, 3), "uint8", 1))  # patches are read one by one
            for first, batch in images:
                writer.write(IMAGES, first, batch)
        if jpegs is not None:
            writer.append_bytes(JPEG, [])
            for items in jpegs:
                writer.append_bytes(JPEG, items)
        writer.set_attrs(header.attrs())


def write_coords(writer: StoreWriter, coords: NDArray[np.int64], attrs: dict[str, Any]) -> None:
    """The `coords` array that patch and feature stores share."""
    writer.create(ArraySpec(COORDS, (len(coords), 2), "int64", ROWS_PER_CHUNK, attrs=attrs))
    writer.write(COORDS, 0, coords)


def coords_attrs(header: Header, geometry: PatchGeometry) -> dict[str, Any]:
    """Attributes of `coords`: those TRIDENT's readers expect, and our exact geometry, which `geometry_from` reads.

    `patch_size` and `patch_size_level0` are TRIDENT's names for `patch_px` and `patch_level0`. Magnifications are
    nominal (10 / mpp); `mpp` is the resolution actually delivered. Imported rows have only those of
    TRIDENT's attributes that are known.
    """
    slide, tile = header.slide, header.specs.get("tile")
    if tile is None:
        return _attrs_of_imported(header, geometry)
    return {
        "name": slide.slide_id,
        "patch_size": geometry.patch_px,
        "patch_size_level0": geometry.patch_level0,
        "overlap": tile["overlap_px"],
        "level0_magnification": _nominal(slide.objective or 10 / slide.mpp),
        "target_magnification": _nominal(10 / tile["mpp"]),
        "level0_width": slide.width,
        "level0_height": slide.height,
        **asdict(geometry),
    }


def _attrs_of_imported(header: Header, geometry: PatchGeometry) -> dict[str, Any]:
    slide, given = header.slide, header.specs.get("import", {})
    named = {
        "patch_size": geometry.patch_px,
        "patch_size_level0": geometry.patch_level0,
        "level0_width": slide.width,
        "level0_height": slide.height,
        "level0_magnification": slide.objective or (_nominal(10 / slide.mpp) if slide.mpp else 0),
        "target_magnification": given.get("magnification") or (_nominal(10 / geometry.mpp) if geometry.mpp else 0),
    }
    known = {key: value for key, value in named.items() if value}
    overlap = given.get("overlap_px")
    return {"name": slide.slide_id, **known, **({} if overlap is None else {"overlap": overlap}), **asdict(geometry)}


def read_patch_table(path: str | PathLike[str]) -> PatchTable:
    """Read a patch store without its pixels. Raises StoreError if it is not a patch store or is damaged."""
    path = slide_path(path)
    with closing(open_store(path)) as store:
        return read_table(store, path)


def read_patch_facts(path: str | PathLike[str]) -> PatchFacts:
    """What a patch store says of its patches; no row is read. Raises StoreError as `read_patch_table`."""
    path = slide_path(path)
    with closing(open_store(path)) as store:
        Header.parse(store.attrs, PATCH_FORMAT, path)
        geometry = geometry_from(store.array_attrs(COORDS), path)
        return PatchFacts(geometry, store.shape(COORDS)[0], _pixels_in(store))


def read_table(store: Store, path: Path) -> PatchTable:
    """Like `read_patch_table`, from an open store."""
    header = Header.parse(store.attrs, PATCH_FORMAT, path)
    geometry = geometry_from(store.array_attrs(COORDS), path)
    coords, coverage = store.read(COORDS), store.read(COVERAGE)
    if len(coords) != len(coverage):
        raise StoreError(f"{path}: {len(coords)} coords but {len(coverage)} coverage values")
    labels, quality = read_labels(store, len(coords), path), read_quality(store, len(coords), path)
    return PatchTable(
        header, geometry, PatchGrid(coords, coverage), _pixels_in(store), labels, quality, read_dropped(store, path)
    )


def _pixels_in(store: Store) -> str:
    return next((name for name in (IMAGES, JPEG) if name in store.names()), "none")


def geometry_from(attrs: dict[str, Any], path: Path) -> PatchGeometry:
    """The geometry in the attributes of `coords`."""
    try:
        return PatchGeometry(
            patch_px=int(attrs["patch_px"]),
            patch_level0=int(attrs["patch_level0"]),
            stride_level0=int(attrs["stride_level0"]),
            level=int(attrs["level"]),
            level_px=int(attrs["level_px"]),
            mpp=float(attrs["mpp"]),
            resampled=bool(attrs["resampled"]),
        )
    except (KeyError, ValueError) as error:
        raise StoreError(f"{path}: coords lack their geometry ({error})", todo="Recreate the store") from None


def _nominal(magnification: float) -> float | int:
    rounded = round(magnification)
    return rounded if rounded >= 1 and abs(magnification - rounded) < 0.2 * rounded else float(magnification)
