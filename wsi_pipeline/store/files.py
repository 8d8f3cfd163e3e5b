"""Opening and making stores by path: `.h5` is HDF5, `.zarr` is Zarr; what is made appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_pipeline.atomic import atomic_path, recover
from wsi_pipeline.cohort.rundir import STORE_SUFFIXES as SUFFIXES
from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.base import Store, StoreWriter


def open_store(path: Path) -> Store:
    """Open a store for reading. Raises StoreError if it is missing, damaged or of an unknown suffix."""
    recover(path)
    if not path.exists():
        raise StoreError(f"{path} is missing", todo="Run the command that makes it, see: wsi-pipeline status")
    if path.suffix == SUFFIXES["hdf5"]:
        from wsi_pipeline.store.hdf5 import Hdf5Store

        return Hdf5Store(path)
    if path.suffix == SUFFIXES["zarr"]:
        from wsi_pipeline.store.zarr import ZarrStore

        return ZarrStore(path)
    raise StoreError(f"{path}: a store ends in {' or '.join(SUFFIXES.values())}")


@contextmanager
def create_store(path: Path) -> Iterator[StoreWriter]:
    """Make a store at `path`; it replaces an old one only when the body ends without an error."""
    with atomic_path(path) as temporary:
        writer = _writer(temporary, path.suffix)
        try:
            yield writer
        finally:
            writer.close()


@contextmanager
def amend_store(path: Path) -> Iterator[StoreWriter]:
    """Change the store at `path`: a copy is changed, and takes its place only when the body ends without an error."""
    open_store(path).close()
    with atomic_path(path) as temporary:
        if path.is_dir():
            shutil.copytree(path, temporary)
        else:
            shutil.copyfile(path, temporary)
        writer = _writer(temporary, path.suffix, anew=False)
        try:
            yield writer
        finally:
            writer.close()


def _writer(temporary: Path, suffix: str, *, anew: bool = True) -> StoreWriter:
    if suffix == SUFFIXES["zarr"]:
        from wsi_pipeline.store.zarr import ZarrWriter

        return ZarrWriter(temporary, anew=anew)
    from wsi_pipeline.store.hdf5 import Hdf5Writer

    return Hdf5Writer(temporary, anew=anew)
