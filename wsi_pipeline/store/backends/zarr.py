"""Stores as folders of sharded Zarr v3, with the names and attributes of the HDF5 ones.

Lists of byte strings have no settled type in the Zarr v3 specification, so `jpeg` is two plain arrays here: the
bytes end to end (`jpeg`) and where each row starts (`jpeg_offsets`, int64, N + 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from wsi_pipeline.store.backends.backend import ArrayFacts, ArraySpec, Backend

CHUNKS_PER_SHARD = 16
_BYTES_PER_CHUNK = 1 << 16
_BYTES_PER_SHARD = 1 << 24
_OFFSETS = "_offsets"


class ZarrFolder(Backend):
    """One Zarr v3 group; each chunk carries a CRC-32C checksum."""

    def __init__(self, path: Path, mode: Literal["r", "w", "r+"]) -> None:
        self._group = zarr.open_group(str(path), mode=mode, zarr_format=3)
        self._ragged: dict[str, _Ragged] = {}

    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self._group if not name.endswith(_OFFSETS))

    def describe(self, name: str) -> ArrayFacts:
        """Facts of an array: see `Backend.describe`."""
        array: Any = self._group[name]
        attrs = dict(array.attrs)
        if name + _OFFSETS in self._group:
            offsets: Any = self._group[name + _OFFSETS]
            return ArrayFacts((int(offsets.shape[0]) - 1,), "bytes", attrs, ragged=True)
        return ArrayFacts(tuple(array.shape), str(array.dtype), attrs)

    def attrs(self) -> dict[str, Any]:
        return dict(self._group.attrs)

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        array: Any = self._group[name]
        return np.asarray(array[start:stop])

    def read_bytes(self, name: str, start: int, stop: int) -> list[bytes]:
        """Rows of byte strings: see `Backend.read_bytes`."""
        edges = self.read(name + _OFFSETS, start, stop + 1)
        if (np.diff(edges) < 0).any() or edges[0] < 0:
            raise ValueError("offsets decrease")
        data = self.read(name, int(edges[0]), int(edges[-1])).tobytes()
        edges = edges - edges[0]
        return [data[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)]

    def set_attrs(self, attrs: Mapping[str, Any]) -> None:
        self._group.attrs.update(dict(attrs))

    def create(self, spec: ArraySpec, chunks_per_shard: int = CHUNKS_PER_SHARD) -> None:
        """Create an array: see `Backend.create`. A shard is one file."""
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
        array: Any = self._group[name]
        array[start : start + len(rows)] = rows

    def append_bytes(self, name: str, items: Sequence[bytes]) -> None:
        """Append byte strings: see `Backend.append_bytes`."""
        if name not in self._ragged:
            self.create(ArraySpec(name, (0,), "uint8", _BYTES_PER_CHUNK), _BYTES_PER_SHARD // _BYTES_PER_CHUNK)
            self._ragged[name] = _Ragged()
        ragged = self._ragged[name]
        ragged.pending += b"".join(items)
        ragged.lengths += [len(item) for item in items]
        # Whole shards only: a shard that is written twice is encoded twice.
        self._write_out(name, len(ragged.pending) // _BYTES_PER_SHARD * _BYTES_PER_SHARD)

    def flush(self) -> None:
        """Write pending rows and the offsets of byte strings."""
        for name, ragged in self._ragged.items():
            self._write_out(name, len(ragged.pending))
            edges = np.concatenate([[0], np.cumsum(ragged.lengths, dtype=np.int64)]).astype(np.int64)
            self.create(ArraySpec(name + _OFFSETS, edges.shape, "int64", 4096))
            self.write(name + _OFFSETS, 0, edges)
        self._ragged.clear()

    def close(self) -> None:
        self._group.store.close()

    def _write_out(self, name: str, count: int) -> None:
        ragged = self._ragged[name]
        array: Any = self._group[name]
        start = int(array.shape[0])
        array.resize((start + count,))
        if count:
            self.write(name, start, np.frombuffer(bytes(ragged.pending[:count]), np.uint8))
        del ragged.pending[:count]


@dataclass
class _Ragged:
    pending: bytearray = field(default_factory=bytearray)
    lengths: list[int] = field(default_factory=list)
