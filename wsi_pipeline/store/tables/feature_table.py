"""The feature store: one row of features per patch, row for row with the patch store it was made from."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import StoreError
from wsi_pipeline.files.addresses import slide_path
from wsi_pipeline.store.files import create_store, open_store
from wsi_pipeline.store.schema import COORDS, FEATURE_BYTES_PER_CHUNK, FEATURE_FORMAT, FEATURES, Header
from wsi_pipeline.store.store import ArraySpec, Store
from wsi_pipeline.store.tables.patch_table import coords_attrs, geometry_from, write_coords
from wsi_pipeline.tiling.resolve import PatchGeometry
from wsi_pipeline.wording import counted


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """A whole feature store: features (N, D), coords int64 (N, 2)."""

    header: Header
    geometry: PatchGeometry
    coords: NDArray[np.int64]
    features: NDArray[Any]

    def __repr__(self) -> str:
        rows, dim = self.features.shape
        what = f"{rows} patches x {dim} by {self.header.extra['encoder']['name']}"
        return f"<FeatureTable {self.header.slide.slide_id}: {what}, {self.geometry.mpp:.4g} mpp>"


def write_features(
    path: Path, header: Header, geometry: PatchGeometry, coords: NDArray[np.int64], features: NDArray[np.floating[Any]]
) -> None:
    """Write a feature store at `path`, atomically; `features` (N, D) already in the dtype to store.

    Raises StoreError for values that are not finite, naming the first such patch.
    """
    check_finite(features, coords)
    n, dim = features.shape
    rows = max(1, FEATURE_BYTES_PER_CHUNK // max(1, dim * features.itemsize))
    with create_store(path) as writer:
        writer.create(ArraySpec(FEATURES, (n, dim), str(features.dtype), rows, attrs={"name": header.slide.slide_id}))
        writer.write(FEATURES, 0, features)
        write_coords(writer, coords, coords_attrs(header, geometry))
        writer.set_attrs(header.attrs())


def check_finite(features: NDArray[np.floating[Any]], coords: NDArray[np.int64]) -> None:
    """Refuse NaN and infinity (which in float16 may be an overflow), naming the first patch."""
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        x, y = (int(value) for value in coords[row])
        raise StoreError(
            f"{int(bad.sum())} of {counted(len(features), 'patch')} have features that are not finite in "
            f"{features.dtype}, the first at row {row}, ({x}, {y})",
            todo="If the encoder gives values beyond 65504, store them with --dtype float32",
        )


def read_feature_table(path: str | PathLike[str]) -> FeatureTable:
    """Read a feature store. Raises StoreError if it is not a feature store or is damaged."""
    path = slide_path(path)
    with closing(open_store(path)) as store:
        header = Header.parse(store.attrs, FEATURE_FORMAT, path)
        geometry = geometry_from(store.array_attrs(COORDS), path)
        check_rows(store, path)
        return FeatureTable(header, geometry, store.read(COORDS), store.read(FEATURES))


def check_rows(store: Store, path: Path) -> None:
    """Raise StoreError if an open feature store has not one row of features for each row of coords."""
    coords, features = store.shape(COORDS), store.shape(FEATURES)
    if len(features) != 2 or coords[0] != features[0]:
        raise StoreError(f"{path}: features {features} do not match coords {coords}")
