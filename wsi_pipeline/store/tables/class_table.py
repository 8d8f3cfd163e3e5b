"""The class store: one row of class probabilities per patch, row for row with the patch store it was made from."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.files import create_store, open_store
from wsi_pipeline.store.schema import CLASS_FORMAT, COORDS, PROBABILITIES, ROWS_PER_CHUNK, Header
from wsi_pipeline.store.store import ArraySpec
from wsi_pipeline.store.tables.patch_table import coords_attrs, geometry_from, write_coords
from wsi_pipeline.tiling.resolve import PatchGeometry


@dataclass(frozen=True, eq=False)
class ClassTable:
    """A whole class store: coords int64 (N, 2), probabilities float32 (N, C), and the names of the C classes."""

    header: Header
    geometry: PatchGeometry
    coords: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]


def write_classes(
    path: Path,
    header: Header,
    geometry: PatchGeometry,
    coords: NDArray[np.int64],
    probabilities: NDArray[np.float32],
) -> None:
    """Write a class store at `path`, atomically; `header.extra` names the classes of the columns."""
    with create_store(path) as writer:
        writer.create(ArraySpec(PROBABILITIES, probabilities.shape, "float32", ROWS_PER_CHUNK))
        writer.write(PROBABILITIES, 0, probabilities)
        write_coords(writer, coords, coords_attrs(header, geometry))
        writer.set_attrs(header.attrs())


def read_class_table(path: str | PathLike[str]) -> ClassTable:
    """Read a class store. Raises StoreError if it is not a class store or is damaged."""
    path = Path(path)
    with closing(open_store(path)) as store:
        header = Header.parse(store.attrs, CLASS_FORMAT, path)
        geometry = geometry_from(store.array_attrs(COORDS), path)
        coords, probabilities = store.read(COORDS), store.read(PROBABILITIES)
    classes = tuple(str(name) for name in header.extra.get("classes", ()))
    if probabilities.shape != (len(coords), len(classes)):
        raise StoreError(
            f"{path}: probabilities {probabilities.shape} do not match {len(coords)} coords and {len(classes)} classes",
            todo="Remove the file and run again",
        )
    return ClassTable(header, geometry, coords, probabilities, classes)
