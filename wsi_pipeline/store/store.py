"""A store as the rest of the program sees it: named arrays with attributes, read by rows, written once.

HDF5 (`hdf5.py`) and sharded Zarr v3 (`zarr.py`) have the same names inside. For both, every row that is read is
checked against its checksum here, and everything else against the seal when the store is opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import DamagedStoreError, StoreError
from wsi_pipeline.store.backends.backend import ArrayFacts, Backend
from wsi_pipeline.store.backends.backend import ArraySpec as ArraySpec
from wsi_pipeline.store.checksums import CHECKSUMS, ENDING, SEAL, Blocks, checksum, listing, seal, table_digest

FIRST_SEALED_VERSION = 2
_ROWS_AT_A_TIME = 64
_BAD = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError)
"""What libraries raise on damaged bytes."""


class Store:
    """An open store, for reading. Use as a context manager.

    attrs   root attributes, except those of the checksums
    """

    def __init__(self, path: Path, backend: Callable[[], Backend]) -> None:
        """Open the store at `path`. Raises DamagedStoreError if it does not match its seal."""
        self.path, self._mark = path, file_mark(path)
        self._facts: dict[str, ArrayFacts] = {}
        self._tables: dict[str, NDArray[np.uint32]] = {}
        try:
            self._backend = backend()
        except _BAD as error:
            raise self._trouble("it cannot be opened", error) from None
        try:
            self.attrs, self._listed = self._unseal()
        except StoreError:
            self.close()
            raise

    def names(self) -> tuple[str, ...]:
        """Names of the arrays in it, sorted."""
        try:
            return tuple(sorted(name for name in self._backend.names() if not name.endswith(ENDING)))
        except _BAD as error:
            raise self._trouble("its arrays cannot be listed", error) from None

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array; (N,) for a list of byte strings."""
        return self._describe(name).shape

    def array_attrs(self, name: str) -> dict[str, Any]:
        """Attributes of one array."""
        return dict(self._describe(name).attrs)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows start to stop (all by default) of an array.

        Raises DamagedStoreError if they do not match their checksums.
        """
        start, stop = self._span(name, start, stop)
        table, rows = self._table(name)
        if table is None:
            return self._read(name, start, stop)
        first, last = start // rows, -(-stop // rows)  # whole blocks, as they are stored anyway
        data = self._read(name, first * rows, min(self.shape(name)[0], last * rows))
        for block in range(first, last if stop > start else first):
            self._compare(name, block, data[(block - first) * rows : (block - first + 1) * rows], table)
        return data[start - first * rows : stop - first * rows]

    def read_bytes(self, name: str, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Rows start to stop of a list of byte strings."""
        start, stop = self._span(name, start, stop)
        if stop == start:
            return []
        try:
            items = self._backend.read_bytes(name, start, stop)
        except _BAD as error:
            raise self._trouble(f"{name} cannot be read", error) from None
        table, _ = self._table(name)
        if table is not None:
            for row, item in enumerate(items, start):
                self._compare(name, row, item, table)
        return items

    def verify(self) -> None:
        """Read everything. Raises DamagedStoreError at the first row that does not match its checksum."""
        for name in self.names():
            step = max(_ROWS_AT_A_TIME, self._table(name)[1])
            for start in range(0, self.shape(name)[0], step):
                (self.read_bytes if self._describe(name).ragged else self.read)(name, start, start + step)

    def close(self) -> None:
        """Release the file."""
        self._backend.close()

    def _unseal(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Root attributes and the checksums that the seal covers, verified; stores of format version 1 have none."""
        try:
            attrs = self._backend.attrs()
            stamp, listed = attrs.pop(SEAL, None), attrs.pop(CHECKSUMS, None)
            version = attrs.get("version")
            if stamp is None and listed is None and (not isinstance(version, int) or version < FIRST_SEALED_VERSION):
                return attrs, {}
            covered = json.loads(str(listed))
            if seal(covered, self._facts_of, attrs) == stamp:
                return attrs, dict(covered["arrays"])
        except _BAD as error:
            raise self._trouble("its attributes cannot be read", error) from None
        raise self._damaged("its attributes do not match their checksum")

    def _span(self, name: str, start: int, stop: int | None) -> tuple[int, int]:
        count = self.shape(name)[0]
        start = min(start, count)
        return start, max(start, count if stop is None else min(stop, count))

    def _describe(self, name: str) -> ArrayFacts:
        try:
            return self._facts_of(name)
        except KeyError:
            raise StoreError(f"{self.path} has no array {name!r}; it has {', '.join(self.names())}") from None
        except _BAD as error:
            raise self._trouble(f"{name} cannot be read", error) from None

    def _facts_of(self, name: str) -> ArrayFacts:
        """Facts of an array, read once. Raises what the library raises."""
        if name not in self._facts:
            self._facts[name] = self._backend.describe(name)
        return self._facts[name]

    def _read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        try:
            return self._backend.read(name, start, stop)
        except _BAD as error:
            raise self._trouble(f"{name} cannot be read", error) from None

    def _table(self, name: str) -> tuple[NDArray[np.uint32] | None, int]:
        """Checksums of an array and the rows of a block; None for one that was added by other means."""
        entry = self._listed.get(name)
        if entry is None:
            return None, 1
        if name not in self._tables:
            blocks = -(-self.shape(name)[0] // entry["rows"])
            table = self._read(name + ENDING, 0, blocks)
            if len(table) != blocks or table_digest(table) != entry["digest"]:
                raise self._damaged(f"the checksums of {name} do not match their digest")
            self._tables[name] = table
        return self._tables[name], entry["rows"]

    def _compare(self, name: str, block: int, data: bytes | NDArray[Any], table: NDArray[np.uint32]) -> None:
        if checksum(data) != int(table[block]):
            raise self._damaged(f"{name} does not match its checksum in block {block} of {len(table)}")

    def _damaged(self, how: str) -> StoreError:
        """The error for damage; a store that was replaced while being read is not damaged."""
        if file_mark(self.path) != self._mark:
            return StoreError(f"{self.path} was replaced by another process while it was read", todo="Run again")
        return DamagedStoreError(f"{self.path} is damaged: {how}", path=self.path, mark=self._mark)

    def _trouble(self, what: str, error: BaseException) -> StoreError:
        """The error for an exception of a library: damage, unless the system could not read the file."""
        if isinstance(error, OSError) and error.errno:
            return StoreError(f"{self.path} cannot be read now: {error.strerror or error}", todo="Run again")
        return self._damaged(f"{what} ({_short(error)})")

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StoreWriter:
    """A store being written at a temporary path; `create_store` renames it when it is complete and sealed."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._blocks: dict[str, Blocks] = {}

    def set_attrs(self, attrs: dict[str, Any]) -> None:
        """Set root attributes (strings and numbers)."""
        self._backend.set_attrs(attrs)

    def create(self, spec: ArraySpec) -> None:
        """Create an array filled with zeros."""
        self._backend.create(spec)
        self._blocks[spec.name] = Blocks(spec.chunks[0])

    def remove(self, name: str) -> None:
        """Remove an array if it exists."""
        self._backend.remove(name)
        self._backend.remove(name + ENDING)
        self._blocks.pop(name, None)

    def write(self, name: str, start: int, rows: NDArray[np.generic]) -> None:
        """Write rows from `start` on of an array created here."""
        if len(rows):
            self._backend.write(name, start, rows)
            self._blocks[name].add(start, rows)

    def append_bytes(self, name: str, items: Sequence[bytes]) -> None:
        """Append rows to a list of byte strings of any length (one JPEG per row), created on first use."""
        self._backend.append_bytes(name, items)
        self._blocks.setdefault(name, Blocks(1)).add_bytes(items)

    def finish(self) -> None:
        """Write the checksums and the seal; nothing may be changed afterwards."""
        self._backend.flush()
        attrs = self._backend.attrs()
        old = json.loads(attrs[CHECKSUMS])["arrays"] if CHECKSUMS in attrs else {}
        entries = {name: (old[name]["rows"], old[name]["digest"]) for name in old if self._has(name)}
        facts = {name: self._backend.describe(name) for name in {*entries, *self._blocks}}
        for name, blocks in sorted(self._blocks.items()):
            table = blocks.table(facts[name].shape[0])
            table = self._read_back(name, blocks.rows) if table is None else table
            self._backend.create(ArraySpec(name + ENDING, table.shape, "uint32", 4096))
            if len(table):
                self._backend.write(name + ENDING, 0, table)
            entries[name] = (blocks.rows, table_digest(table))
        listed = listing(entries, facts.__getitem__, attrs)
        self._backend.set_attrs({CHECKSUMS: listed})
        self._backend.set_attrs({SEAL: seal(json.loads(listed), facts.__getitem__, attrs)})

    def close(self) -> None:
        """Flush everything to the file."""
        self._backend.close()

    def _has(self, name: str) -> bool:
        return name in self._backend.names()

    def _read_back(self, name: str, rows: int) -> NDArray[np.uint32]:
        """Checksums of rows that were not written in order, or not at all."""
        count = self._backend.describe(name).shape[0]
        parts = (self._backend.read(name, start, min(count, start + rows)) for start in range(0, count, rows))
        return np.array([checksum(part) for part in parts], np.uint32)


def file_mark(path: Path) -> tuple[int, ...]:
    """Identifies a file among others at the same path; for a folder, by its zarr.json."""
    try:
        facts = (path / "zarr.json" if path.is_dir() else path).stat()
    except OSError:
        return ()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _short(error: BaseException) -> str:
    """The core of a library's message."""
    text = str(error)
    return text[text.rfind("(") + 1 : text.rfind(")")] if "(" in text and ")" in text else text or type(error).__name__
