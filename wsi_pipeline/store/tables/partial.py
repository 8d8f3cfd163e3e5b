"""Rows of an unfinished slide, kept beside its store, so that a killed run resumes where it stopped.

One file, only ever appended to: a line of JSON that says what the rows are, then blocks of rows, each with its
length and checksum. A block that was being written when the process died fails its checksum and is cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.system.atomic import write_bytes

_MAGIC = "wsi-pipeline/partial"
_DTYPES = ("float16", "float32")
_DIGEST_BYTES = 16
_BLOCK = struct.Struct(f"<Q{_DIGEST_BYTES}s")


@dataclass(frozen=True)
class RowsKey:
    """What unfinished rows must match to be used: the digest of the future store, and the layout of rows.

    batch   patches of one batch: rounding differs slightly between batch sizes, so a slide is
            finished with the batch size it was begun with
    """

    digest: str
    rows: int
    dim: int
    dtype: str
    batch: int


def partial_path(store: Path) -> Path:
    """Path of a store's unfinished rows: a hidden sibling."""
    return store.with_name(f".{store.stem}.partial")


def read_partial(path: Path) -> tuple[RowsKey, NDArray[Any]] | None:
    """The complete rows, (n, D) with n <= key.rows, and their key; None if there are none to use."""
    try:
        with path.open("rb") as file:
            key = _parse(file.readline())
            if key is None:
                return None
            blocks = list(_blocks(file, key))
    except OSError:
        return None
    rows = np.concatenate([np.zeros((0, key.dim), key.dtype), *blocks])
    return (key, rows) if len(rows) <= key.rows else None


class PartialRows:
    """Appends rows to the file at `path`, rewritten to hold exactly `kept`. For one thread."""

    def __init__(self, path: Path, key: RowsKey, kept: NDArray[Any]) -> None:
        self.path, self.done, self._key = path, len(kept), key
        # Rewritten, not cut in place: that drops a torn tail and cannot tear anything itself.
        write_bytes(path, _head(key) + (_block(kept.astype(key.dtype, copy=False)) if len(kept) else b""))

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows (n, D), flushed to the disk."""
        if len(rows) == 0:
            return
        with self.path.open("ab") as file:
            file.write(_block(np.ascontiguousarray(rows, dtype=self._key.dtype)))
            file.flush()
            os.fsync(file.fileno())
        self.done += len(rows)


def _head(key: RowsKey) -> bytes:
    return json.dumps({"format": _MAGIC, **asdict(key)}, sort_keys=True).encode() + b"\n"


def _parse(line: bytes) -> RowsKey | None:
    try:
        facts = json.loads(line)
        if facts.pop("format") != _MAGIC or not line.endswith(b"\n"):
            return None
        key = RowsKey(**facts)
        np.dtype(key.dtype)
        numbers = (key.rows, key.dim, key.batch)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return key if all(type(number) is int and number >= 0 for number in numbers) and key.dtype in _DTYPES else None


def _block(rows: NDArray[Any]) -> bytes:
    data = rows.tobytes()
    return _BLOCK.pack(len(rows), _checksum(data)) + data


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _blocks(file: IO[bytes], key: RowsKey) -> Iterator[NDArray[Any]]:
    """Blocks before the first that is torn or damaged."""
    left, width = key.rows, key.dim * np.dtype(key.dtype).itemsize
    while len(head := file.read(_BLOCK.size)) == _BLOCK.size:
        count, checksum = _BLOCK.unpack(head)
        if not 0 < count <= left:
            return
        data = file.read(count * width)
        if len(data) != count * width or _checksum(data) != checksum:
            return
        left -= count
        yield np.frombuffer(data, key.dtype).reshape(count, key.dim)
