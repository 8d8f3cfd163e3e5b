"""Opening and creating stores by path: `.h5` is HDF5, `.zarr` is Zarr; new stores appear complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Literal

from wsi_pipeline.cohort.run_dir import STORE_SUFFIXES as SUFFIXES
from wsi_pipeline.errors import StoreError
from wsi_pipeline.files.addresses import is_address, slide_path
from wsi_pipeline.remote.kept_store import kept_store
from wsi_pipeline.store.backends.backend import Backend
from wsi_pipeline.store.store import Store, StoreWriter
from wsi_pipeline.system.atomic import atomic_path, recover


def open_store(path: str | PathLike[str]) -> Store:
    """Open a store for reading.

    path   may be an address: the store is then fetched into the cache first

    Raises StoreError if it is missing or of an unknown suffix, DamagedStoreError if it does not match its checksums.
    """
    place = slide_path(path)
    if place.suffix not in SUFFIXES.values():
        raise StoreError(f"{place}: a store ends in {' or '.join(SUFFIXES.values())}")
    if is_address(place):
        place = kept_store(place)
    if place.suffix == SUFFIXES["zarr"]:
        recover(place)
    if not place.exists():
        raise StoreError(f"{place} is missing", todo="Run the command that makes it; see: wsi-pipeline status")
    return Store(place, lambda: _backend(place, "r"))


@contextmanager
def create_store(path: Path) -> Iterator[StoreWriter]:
    """Create a store at `path`; it replaces an old one only if the body ends without an error.

    Raises StoreError for an address.
    """
    _on_this_machine(path)
    with atomic_path(path) as temporary, _writing(temporary, path.suffix, "w") as writer:
        yield writer


@contextmanager
def amend_store(path: Path) -> Iterator[StoreWriter]:
    """Change the store at `path`: a copy is changed and replaces it only if the body ends without an error.

    Raises StoreError for an address.
    """
    _on_this_machine(path)
    open_store(path).close()
    with atomic_path(path) as temporary:
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, temporary)
        with _writing(temporary, path.suffix, "r+") as writer:
            yield writer


def _on_this_machine(path: Path) -> None:
    """Refuse an address, which would become a folder `s3:` here."""
    if is_address(path):
        raise StoreError(
            f"stores are not written to an address: {path}", todo="Write it to this machine, then copy it there."
        )


@contextmanager
def _writing(temporary: Path, suffix: str, mode: Literal["w", "r+"]) -> Iterator[StoreWriter]:
    writer = StoreWriter(_backend(temporary, mode, suffix))
    try:
        yield writer
        writer.finish()
    finally:
        writer.close()


def _backend(path: Path, mode: Literal["r", "w", "r+"], suffix: str | None = None) -> Backend:
    if (suffix or path.suffix) == SUFFIXES["zarr"]:
        from wsi_pipeline.store.backends.zarr import ZarrFolder

        return ZarrFolder(path, mode)
    from wsi_pipeline.store.backends.hdf5 import Hdf5File

    return Hdf5File(path, mode)
