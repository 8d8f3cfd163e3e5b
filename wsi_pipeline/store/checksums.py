"""CRC-32C of every block of rows and one digest over the rest of a store: damage is found before data is used.

The checksums of HDF5 and Zarr themselves do not cover everything: a lost chunk reads as zeros, byte strings
in HDF5's heap and all its attributes have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config.fields import canonical_json
from wsi_pipeline.store.backends.backend import ArrayFacts

SEAL, CHECKSUMS = "seal", "checksums"
"""Root attributes: the digest over the rest, and the checksums of each array."""
ENDING = "_crc32c"
"""Suffix of the array that holds another array's checksums, uint32 (blocks,)."""


@dataclass
class Blocks:
    """Checksums of an array that is being written.

    rows   in one block, as in one chunk

    `broken` once rows were written out of order; they must then be read back.
    """

    rows: int
    broken: bool = False
    _next: int = 0
    _running: int = 0
    _done: list[int] = field(default_factory=list)

    def add(self, start: int, rows: NDArray[Any]) -> None:
        """Rows from `start` on were written."""
        self.broken |= start != self._next
        if self.broken:
            return
        data = np.ascontiguousarray(rows)
        while len(data):
            part, data = np.split(data, [self.rows - self._next % self.rows])
            self._running = _extend(self._running, part)
            self._next += len(part)
            if self._next % self.rows == 0:
                self._close()

    def add_bytes(self, items: Sequence[bytes]) -> None:
        """Byte strings were appended; each is a block."""
        self._done += [checksum(item) for item in items]
        self._next += len(items)

    def table(self, count: int) -> NDArray[np.uint32] | None:
        """The checksums of all `count` rows; None if the rows must be read back."""
        if self.broken or self._next != count:
            return None
        if self._next % self.rows:
            self._close()
        return np.array(self._done, np.uint32)

    def _close(self) -> None:
        self._done.append(self._running)
        self._running = 0


def checksum(data: bytes | NDArray[Any]) -> int:
    """CRC-32C of bytes, or of an array's bytes in memory order."""
    return _extend(0, data)


def _extend(crc: int, data: bytes | NDArray[Any]) -> int:
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data)
        try:
            return int(google_crc32c.extend(crc, data))  # without a copy
        except TypeError:  # if it accepts bytes only
            data = data.tobytes()
    return int(google_crc32c.extend(crc, data))


def table_digest(table: NDArray[np.uint32]) -> str:
    """Digest of the checksums of an array."""
    return hashlib.sha256(table.astype("<u4").tobytes()).hexdigest()


def listing(
    tables: Mapping[str, tuple[int, str]], describe: Callable[[str], ArrayFacts], root: Mapping[str, Any]
) -> str:
    """The attribute `checksums`: JSON of what the seal covers. Later additions are not covered.

    tables   array -> rows of a block, digest of its checksums
    """
    arrays = {
        name: {"rows": rows, "digest": digest, "attrs": sorted(describe(name).attrs)}
        for name, (rows, digest) in tables.items()
    }
    return canonical_json({"arrays": arrays, "attrs": sorted(set(root) - {SEAL, CHECKSUMS})})


def seal(listed: Mapping[str, Any], describe: Callable[[str], ArrayFacts], root: Mapping[str, Any]) -> str:
    """Digest over the root attributes, the arrays' shapes, types and attributes, and the digests of their checksums.

    listed   the attribute `checksums`, parsed

    Raises KeyError, TypeError or AttributeError if something listed is not there.
    """
    arrays = {}
    for name, entry in listed["arrays"].items():
        facts = describe(name)
        attrs = {key: facts.attrs[key] for key in entry["attrs"]}
        arrays[name] = {"shape": list(facts.shape), "dtype": facts.dtype, "attrs": attrs}
    covered = {"attrs": {key: root[key] for key in listed["attrs"]}, "arrays": arrays, "checksums": listed}
    return hashlib.sha256(canonical_json(covered).encode()).hexdigest()
