"""Stores as folders of sharded Zarr v3, with the names and attributes of the HDF5 ones.

Lists of byte strings have no settled type in the Zarr v3 specification, so `jpeg` is two plain arrays here: the
bytes end to end (`jpeg`) and where each row starts (`jpeg_offsets`, int64, N + 1).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.base import ArraySpec, Store, StoreWriter

CHUNKS_PER_SHARD = 16
_BYTES_PER_CHUNK = 1 << 16
_BYTES_PER_SHARD = 1 << 24
_OFFSETS = "_offsets"
_DAMAGED = "Remove the folder and run the same command again: it will be made anew"


class ZarrStore(Store):
    """Reads one Zarr v3 group."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._group = zarr.open_group(str(path), mode="r", zarr_format=3)
            self.attrs = dict(self._group.attrs)
        except (OSError, ValueError, KeyError, json.JSONDecodeError, zarr.errors.BaseZarrError) as error:
            raise StoreError(f"{path} is no readable Zarr v3 group ({error})", todo=_DAMAGED) from None

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self._group if not name.endswith(_OFFSETS)))

    def shape(self, name: str) -> tuple[int, ...]:
        if self._is_ragged(name):
            return (int(self._array(name + _OFFSETS).shape[0]) - 1,)
        return tuple(self._array(name).shape)

    def array_attrs(self, name: str) -> dict[str, Any]:
        return dict(self._array(name).attrs)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array: see `Store.read`."""
        try:
            return np.asarray(self._array(name)[start:stop])
        except (OSError, ValueError, RuntimeError) as error:
            raise StoreError(f"{self.path}: {name} is damaged ({error})", todo=_DAMAGED) from None

    def read_bytes(self, name: str, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Rows of byte strings: see `Store.read_bytes`."""
        last = self.shape(name)[0] if stop is None else min(stop, self.shape(name)[0])
        if last <= start:
            return []
        edges = self.read(name + _OFFSETS, start, last + 1)
        data = self.read(name, int(edges[0]), int(edges[-1])).tobytes()
        edges = edges - edges[0]
        return [data[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)]

    def close(self) -> None:
        self._group.store.close()

    def _is_ragged(self, name: str) -> bool:
        return name + _OFFSETS in self._group

    def _array(self, name: str) -> Any:
        try:
            return self._group[name]
        except KeyError:
            raise StoreError(f"{self.path} has no array {name!r}; it has {', '.join(self.names())}") from None


class ZarrWriter(StoreWriter):
    """Writes one Zarr v3 group; each chunk carries a CRC-32C checksum."""

    def __init__(self, path: Path, *, anew: bool = True) -> None:
        self._group = zarr.open_group(str(path), mode="w" if anew else "r+", zarr_format=3)
        self._ragged: dict[str, _Ragged] = {}

    def set_attrs(self, attrs: dict[str, Any]) -> None:
        self._group.attrs.update(attrs)

    def create(self, spec: ArraySpec, chunks_per_shard: int = CHUNKS_PER_SHARD) -> None:
        """Make an array: see `StoreWriter.create`. A shard is one file."""
        rows = spec.chunks[0]
        compressors: tuple[Any, ...] = (ZstdCodec(level=3), Crc32cCodec()) if spec.compress else (Crc32cCodec(),)
        array = self._group.create_array(
            spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunks,
            shards=(rows * chunks_per_shard, *spec.chunks[1:]),
            compressors=compressors,
        )
        array.attrs.update(spec.attrs)

    def remove(self, name: str) -> None:
        if name in self._group:
            del self._group[name]

    def write(self, name: str, start: int, rows: NDArray[np.generic]) -> None:
        if len(rows):
            array: Any = self._group[name]
            array[start : start + len(rows)] = rows

    def append_bytes(self, name: str, items: Sequence[bytes]) -> None:
        """Append byte strings: see `StoreWriter.append_bytes`."""
        if name not in self._ragged:
            self.create(ArraySpec(name, (0,), "uint8", _BYTES_PER_CHUNK), _BYTES_PER_SHARD // _BYTES_PER_CHUNK)
            self._ragged[name] = _Ragged()
        ragged = self._ragged[name]
        ragged.pending += b"".join(items)
        ragged.lengths += [len(item) for item in items]
        # Whole shards only: a shard that is written twice is encoded twice.
        self._flush(name, len(ragged.pending) // _BYTES_PER_SHARD * _BYTES_PER_SHARD)

    def close(self) -> None:
        """Flush everything, offsets of byte strings included."""
        for name, ragged in self._ragged.items():
            self._flush(name, len(ragged.pending))
            edges = np.concatenate([[0], np.cumsum(ragged.lengths, dtype=np.int64)]).astype(np.int64)
            self.create(ArraySpec(name + _OFFSETS, edges.shape, "int64", 4096))
            self.write(name + _OFFSETS, 0, edges)
        self._group.store.close()

    def _flush(self, name: str, count: int) -> None:
        ragged = self._ragged[name]
        array: Any = self._group[name]
        start = int(array.shape[0])
        array.resize((start + count,))
        self.write(name, start, np.frombuffer(bytes(ragged.pending[:count]), np.uint8))
        del ragged.pending[:count]


@dataclass
class _Ragged:
    pending: bytearray = field(default_factory=bytearray)
    lengths: list[int] = field(default_factory=list)
