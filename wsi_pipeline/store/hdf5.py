"""Stores as HDF5 files. Opened without file locks, which shared file systems lack; our writes need none, being
made at a temporary path by one process. Each chunk carries a Fletcher-32 checksum, but for variable-length
byte strings, on which HDF5 has none (a JPEG that was damaged does not decode)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.base import ArraySpec, Store, StoreWriter

_DAMAGED = "Remove the file and run the same command again: it will be made anew"


class Hdf5Store(Store):
    """Reads one HDF5 file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r", locking=False)
            self.attrs = {key: _plain(value) for key, value in self._file.attrs.items()}
        except OSError as error:
            raise StoreError(f"{path} is no readable HDF5 file ({_short(error)})", todo=_DAMAGED) from None

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._file))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._array(name).shape)

    def array_attrs(self, name: str) -> dict[str, Any]:
        return {key: _plain(value) for key, value in self._array(name).attrs.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array: see `Store.read`."""
        array = self._array(name)
        try:
            return np.asarray(array[start:stop])
        except OSError as error:
            raise StoreError(f"{self.path}: {name} is damaged ({_short(error)})", todo=_DAMAGED) from None

    def read_bytes(self, name: str, start: int = 0, stop: int | None = None) -> list[bytes]:
        return [item.tobytes() for item in self.read(name, start, stop)]

    def close(self) -> None:
        self._file.close()

    def _array(self, name: str) -> Any:
        try:
            return self._file[name]
        except KeyError:
            raise StoreError(f"{self.path} has no array {name!r}; it has {', '.join(self.names())}") from None


class Hdf5Writer(StoreWriter):
    """Writes one HDF5 file; equal content gives equal bytes (no times are stored)."""

    def __init__(self, path: Path, *, anew: bool = True) -> None:
        self._file = h5py.File(path, "w" if anew else "r+", locking=False)

    def set_attrs(self, attrs: dict[str, Any]) -> None:
        self._file.attrs.update(attrs)

    def create(self, spec: ArraySpec) -> None:
        """Make an array: see `StoreWriter.create`."""
        array = self._file.create_dataset(
            spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunks,
            maxshape=(None, *spec.shape[1:]),
            compression="gzip" if spec.compress else None,
            fletcher32=True,
        )
        array.attrs.update(spec.attrs)

    def remove(self, name: str) -> None:
        if name in self._file:
            del self._file[name]

    def write(self, name: str, start: int, rows: NDArray[np.generic]) -> None:
        if len(rows):
            self._file[name][start : start + len(rows)] = rows

    def append_bytes(self, name: str, items: Sequence[bytes]) -> None:
        """Append byte strings: see `StoreWriter.append_bytes`."""
        if name not in self._file:
            self._file.create_dataset(
                name, shape=(0,), maxshape=(None,), dtype=h5py.vlen_dtype(np.uint8), chunks=(1024,)
            )
        array = self._file[name]
        start = len(array)
        array.resize(start + len(items), axis=0)
        for row, item in enumerate(items, start=start):
            array[row] = np.frombuffer(item, np.uint8)

    def close(self) -> None:
        self._file.close()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _short(error: OSError) -> str:
    text = str(error)
    return text[text.rfind("(") + 1 : text.rfind(")")] if "(" in text and ")" in text else text
