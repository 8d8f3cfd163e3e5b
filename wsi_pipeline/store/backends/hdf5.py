"""Stores as HDF5 files. Opened without file locks, which shared file systems lack; our writes need none, since
one process writes at a temporary path. Each chunk carries a Fletcher-32 checksum for other readers, except
variable-length byte strings, for which HDF5 has none; ours (`checksums.py`) cover those too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.store.backends.backend import ArrayFacts, ArraySpec, Backend
from wsi_pipeline.store.backends.safe_disk import SafeDisk


class Hdf5File(Backend):
    """One HDF5 file; equal content gives equal bytes (no times are stored)."""

    def __init__(self, path: Path, mode: Literal["r", "w", "r+"]) -> None:
        self._raised = False
        self._disk = None if mode == "r" else SafeDisk(path, fresh=mode == "w")
        if self._disk is None:
            self._file = h5py.File(path, "r", locking=False)
        else:
            self._file = h5py.File(self._disk, mode)

    def names(self) -> tuple[str, ...]:
        return tuple(self._file)

    def describe(self, name: str) -> ArrayFacts:
        """Facts of an array: see `Backend.describe`."""
        array = self._file[name]
        ragged = h5py.check_vlen_dtype(array.dtype) is not None
        attrs = {key: _plain(value) for key, value in array.attrs.items()}
        return ArrayFacts(tuple(array.shape), "bytes" if ragged else str(array.dtype), attrs, ragged)

    def attrs(self) -> dict[str, Any]:
        return {key: _plain(value) for key, value in self._file.attrs.items()}

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        return np.asarray(self._file[name][start:stop])

    def read_bytes(self, name: str, start: int, stop: int) -> list[bytes]:
        return [item.tobytes() for item in self._file[name][start:stop]]

    def set_attrs(self, attrs: Mapping[str, Any]) -> None:
        self._file.attrs.update(attrs)

    def create(self, spec: ArraySpec) -> None:
        """Create an array: see `Backend.create`."""
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
        self._file[name][start : start + len(rows)] = rows
        self._check()

    def append_bytes(self, name: str, items: Sequence[bytes]) -> None:
        """Append byte strings: see `Backend.append_bytes`."""
        if name not in self._file:
            self._file.create_dataset(
                name, shape=(0,), maxshape=(None,), dtype=h5py.vlen_dtype(np.uint8), chunks=(1024,)
            )
        array = self._file[name]
        start = len(array)
        array.resize(start + len(items), axis=0)
        for row, item in enumerate(items, start=start):
            array[row] = np.frombuffer(item, np.uint8)
        self._check()

    def flush(self) -> None:
        self._file.flush()
        self._check()

    def close(self) -> None:
        """Close the file. Raises the disk's OSError if not everything could be written, unless it was raised before."""
        self._file.close()
        if self._disk is not None:
            self._disk.close()
            self._check()

    def _check(self) -> None:
        if self._disk is not None and self._disk.error is not None and not self._raised:
            self._raised = True
            raise self._disk.error


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
