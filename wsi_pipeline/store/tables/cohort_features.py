"""The features of a whole cohort as one array: in memory if they fit, else mapped from a packed file."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import FEATURE_FORMAT, FEATURES, Header
from wsi_pipeline.store.store import Store
from wsi_pipeline.store.tables.feature_table import check_rows

_BYTES_AT_A_TIME = 64 << 20
_PART_OF_MEMORY = 0.5
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, eq=False)
class CohortFeatures:
    """Features of several slides, one after the other.

    features   float16 (float32 if any store holds it), (sum N, D); a `np.memmap` if they did not fit
    offsets    int64 (B + 1): slide i is rows offsets[i] to offsets[i + 1]
    headers    of the B stores
    """

    features: NDArray[Any]
    offsets: NDArray[np.int64]
    headers: tuple[Header, ...]

    @property
    def mapped(self) -> bool:
        """Whether they are mapped from a file instead of held in memory."""
        return isinstance(self.features, np.memmap)


@dataclass(frozen=True)
class _Shape:
    rows: int
    dim: int
    dtype: np.dtype[Any]
    header: Header


def read_cohort_features(
    paths: Sequence[Path], limit_bytes: int | None = None, *, scratch: Path | None = None
) -> CohortFeatures:
    """Read the feature stores at `paths`, each once, into one array (sum N, D); a store may be empty.

    limit_bytes   most bytes to hold in memory (default: half of the free memory). Above it the rows are packed into an
                  unnamed file, which is mapped and disappears with the array
    scratch       folder of that file (default: that of the first store)

    Raises StoreError for a store that is not a feature store, is damaged, differs in width from the first, or
    holds values that are not finite, and if neither memory nor disk has room for all rows.
    """
    if not paths:
        raise StoreError("no feature store was named")
    shapes = [_shape(path) for path in paths]
    _check_widths(paths, shapes)
    dtype = np.dtype(np.float16) if all(shape.dtype == np.float16 for shape in shapes) else np.dtype(np.float32)
    offsets = np.concatenate([[0], np.cumsum([shape.rows for shape in shapes])]).astype(np.int64)
    limit = _PART_OF_MEMORY * psutil.virtual_memory().available if limit_bytes is None else limit_bytes
    out = _array((int(offsets[-1]), shapes[0].dim), dtype, limit, scratch or paths[0].parent)
    for path, start in zip(paths, offsets, strict=False):
        _read_into(out, int(start), path)
    return CohortFeatures(out, offsets, tuple(shape.header for shape in shapes))


def _shape(path: Path) -> _Shape:
    with closing(open_store(path)) as store:
        header = Header.parse(store.attrs, FEATURE_FORMAT, path)
        check_rows(store, path)
        first = store.read(FEATURES, 0, 1)
        rows, dim = store.shape(FEATURES)
    return _Shape(rows, dim, first.dtype, header)


def _check_widths(paths: Sequence[Path], shapes: Sequence[_Shape]) -> None:
    for path, shape in zip(paths, shapes, strict=True):
        if shape.dim != shapes[0].dim:
            raise StoreError(f"{path} has {shape.dim} features per patch, {paths[0]} has {shapes[0].dim}")


def _array(shape: tuple[int, int], dtype: np.dtype[Any], limit: float, scratch: Path) -> NDArray[Any]:
    size = shape[0] * shape[1] * dtype.itemsize
    if size <= limit or size == 0:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=scratch, prefix=".features-") as file:
        _reserve(file.fileno(), size, scratch)
        return np.memmap(file, dtype, mode="w+", shape=shape)


def _reserve(handle: int, size: int, folder: Path) -> None:
    """Reserve the disk space now: a full disk while the map is written ends the process (SIGBUS)."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"{folder} has no room for the features of all slides ({size / 1e9:.2g} GB), which do not fit in "
                f"memory: {error.strerror}",
                todo="Free space on that disk, or use a machine with more memory",
            ) from None


def _read_into(out: NDArray[Any], start: int, path: Path) -> None:
    with closing(open_store(path)) as store:
        for first, rows in _blocks(store):
            if not np.isfinite(rows).all():
                raise StoreError(f"{path} holds features that are not finite", todo="Embed this slide again")
            out[start + first : start + first + len(rows)] = rows


def _blocks(store: Store) -> Iterator[tuple[int, NDArray[Any]]]:
    count, dim = store.shape(FEATURES)
    step = max(1, _BYTES_AT_A_TIME // max(1, 4 * dim))
    for first in range(0, count, step):
        yield first, store.read(FEATURES, first, min(count, first + step))
