"""What HDF5 and Zarr must provide for a store: named arrays with attributes, unchecked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ArraySpec:
    """An array to create: rows are the first axis of `shape`, `chunk_rows` of them form a chunk."""

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


@dataclass(frozen=True)
class ArrayFacts:
    """Shape, type and attributes of an array.

    shape    (N,) for a list of byte strings
    ragged   whether it is such a list
    """

    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any]
    ragged: bool = False


class Backend(ABC):
    """An open file or folder. Raises whatever its library raises."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""

    @abstractmethod
    def describe(self, name: str) -> ArrayFacts:
        """Shape, type and attributes of an array; KeyError if there is none."""

    @abstractmethod
    def attrs(self) -> dict[str, Any]:
        """Root attributes, strings and plain numbers."""

    @abstractmethod
    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array; 0 <= start <= stop <= N."""

    @abstractmethod
    def read_bytes(self, name: str, start: int, stop: int) -> list[bytes]:
        """Rows of a list of byte strings."""

    @abstractmethod
    def set_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Set root attributes."""

    @abstractmethod
    def create(self, spec: ArraySpec) -> None:
        """Create an array filled with zeros."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an array if it exists."""

    @abstractmethod
    def write(self, name: str, start: int, rows: NDArray[np.generic]) -> None:
        """Write rows from `start` on; at least one."""

    @abstractmethod
    def append_bytes(self, name: str, items: Sequence[bytes]) -> None:
        """Append rows to a list of byte strings, created on first use."""

    @abstractmethod
    def flush(self) -> None:
        """Write everything that was appended, so that it can be described and read."""

    @abstractmethod
    def close(self) -> None:
        """Release the file."""
