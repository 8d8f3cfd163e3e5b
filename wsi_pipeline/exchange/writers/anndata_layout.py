"""AnnData's layout on disk, in HDF5 and Zarr v3 alike, as far as features of patches need it.

The layout is that of https://anndata.readthedocs.io/en/stable/fileformat-prose.html: every element carries
`encoding-type` and `encoding-version`. Written here directly: anndata itself pins other versions of pandas than this
package, and a table of numbers needs a small part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

Group = Any
"""An h5py.Group or a zarr.Group."""


def write_anndata(
    group: Group,
    matrix: NDArray[Any],
    columns: Sequence[str],
    obs: pd.DataFrame,
    obsm: Mapping[str, NDArray[Any]],
    uns: Mapping[str, Any],
) -> None:
    """Fill an empty group with an AnnData object.

    matrix  X, (N, D)
    columns names of its columns, D
    obs     N rows; columns of text become categories; the index is the names of the rows
    obsm    name -> array (N, ...)
    uns     nested mappings of text, numbers, arrays and lists of text
    """
    _mark(group, "anndata", "0.1.0")
    _array(group, "X", matrix)
    _frame(group, "obs", obs)
    _frame(group, "var", pd.DataFrame(index=list(columns)))
    _mapping(group, "obsm", obsm)
    _mapping(group, "uns", uns)
    for name in ("layers", "obsp", "varm", "varp"):
        _mapping(group, name, {})


def _mark(item: Any, kind: str, version: str) -> None:
    item.attrs.update({"encoding-type": kind, "encoding-version": version})


def _array(group: Group, name: str, values: NDArray[Any]) -> Any:
    if isinstance(group, h5py.Group):
        item = group.create_dataset(name, data=values, track_times=False)
    else:
        item = group.create_array(name, data=np.ascontiguousarray(values), chunks=_chunks(values))
    _mark(item, "array", "0.2.0")
    return item


def _chunks(values: NDArray[Any]) -> tuple[int, ...]:
    width = max(1, int(np.prod(values.shape[1:])) * values.itemsize)
    rows = max(1, min(len(values) or 1, (1 << 20) // width))
    return (rows, *(max(1, side) for side in values.shape[1:]))


def _strings(group: Group, name: str, values: Sequence[str]) -> None:
    if isinstance(group, h5py.Group):
        data = np.array(list(values), dtype=object)
        item: Any = group.create_dataset(name, data=data, dtype=h5py.string_dtype(), track_times=False)
    else:
        item = group.create_array(name, shape=(len(values),), dtype=str, chunks=(max(1, len(values)),))
        if len(values):
            item[:] = np.array(list(values), dtype=np.dtypes.StringDType())
    _mark(item, "string-array", "0.2.0")


def _scalar(group: Group, name: str, value: str | float | int) -> None:
    text = isinstance(value, str)
    if isinstance(group, h5py.Group):
        item: Any = group.create_dataset(name, data=value, **({"dtype": h5py.string_dtype()} if text else {}))
    else:
        item = group.create_array(name, shape=(), dtype=str if text else np.asarray(value).dtype, chunks=())
        item[...] = value
    _mark(item, "string" if text else "numeric-scalar", "0.2.0")


def _frame(group: Group, name: str, frame: pd.DataFrame) -> None:
    inner = group.create_group(name)
    _mark(inner, "dataframe", "0.2.0")
    columns = np.array([str(column) for column in frame], dtype=object)
    if isinstance(group, h5py.Group):
        inner.attrs.create("column-order", columns, dtype=h5py.string_dtype())
    else:
        inner.attrs["column-order"] = columns.tolist()
    inner.attrs["_index"] = "_index"
    _strings(inner, "_index", [str(value) for value in frame.index])
    for column in frame:
        values = frame[column]
        if pd.api.types.is_numeric_dtype(values):
            _array(inner, str(column), values.to_numpy())
        else:
            _categories(inner, str(column), values)


def _categories(group: Group, name: str, values: pd.Series[Any]) -> None:
    """A column of text; empty cells are missing."""
    found = pd.Categorical(values.where(values.notna() & (values != "")))
    inner = group.create_group(name)
    _mark(inner, "categorical", "0.2.0")
    inner.attrs["ordered"] = False
    _strings(inner, "categories", [str(value) for value in found.categories])
    _array(inner, "codes", np.asarray(found.codes))


def _mapping(group: Group, name: str, values: Mapping[str, Any]) -> None:
    inner = group.create_group(name)
    _mark(inner, "dict", "0.1.0")
    for key, value in values.items():
        if isinstance(value, Mapping):
            _mapping(inner, key, value)
        elif isinstance(value, np.ndarray):
            _array(inner, key, value)
        elif isinstance(value, str | float | int):
            _scalar(inner, key, value)
        else:
            _strings(inner, key, list(value))


def new_zarr(path: str) -> zarr.Group:
    """A new Zarr v3 group in a folder."""
    return zarr.open_group(path, mode="w", zarr_format=3)
