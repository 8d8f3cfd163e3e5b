"""What a store is to the rest of the program: named arrays with attributes, read by rows, written once.

Two backends keep this contract: HDF5 (`hdf5.py`) and sharded Zarr v3 (`zarr.py`), with the same names inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ArraySpec:
    """An array to be made: rows come first in `shape`, `chunk_rows` of them lie together."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    compress: bool = False
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of one chunk; at least one row, so that empty arrays have chunks too."""
        rows = min(self.chunk_rows, self.shape[0]) if self.shape[0] else self.chunk_rows
        return (max(1, rows), *self.shape[1:])


class Store(ABC):
    """An open store, for reading. Use as a context manager."""

    attrs: dict[str, Any]

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the arrays in it, sorted."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array; (N,) for a list of byte strings."""

    @abstractmethod
    def array_attrs(self, name: str) -> dict[str, Any]:
        """Attributes of one array."""

    @abstractmethod
    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows start to stop (all by default) of an array. Raises StoreError where bytes are damaged."""

    @abstractmethod
    def read_bytes(self, name: str, start: int = 0, stop: int | None = None) -> list[bytes]:
        """Rows start to stop of a list of byte strings."""

    @abstractmethod
    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StoreWriter(ABC):
    """A store being made, at a temporary path; `create_store` renames it when all is written."""

    @abstractmethod
    def set_attrs(self, attrs: dict[str, Any]) -> None:
        """Set root attributes (strings and numbers)."""

    @abstractmethod
    def create(self, spec: ArraySpec) -> None:
        """Make an array, filled with zeros."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Take an array out again, if it is there."""

    @abstractmethod
    def write(self, name: str, start: int, rows: NDArray[np.generic]) -> None:
        """Write rows from `start` on."""

    @abstractmethod
    def append_bytes(self, name: str, items: Sequence[bytes]) -> None:
        """Append rows to a list of byte strings of any length (one JPEG per row); made on first use."""

    @abstractmethod
    def close(self) -> None:
        """Flush everything to the file."""
