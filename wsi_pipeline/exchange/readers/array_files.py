"""One array of features per slide: .npy, .npz, .safetensors, and .pt of torch. Pickled objects are never loaded."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from wsi_pipeline.errors import ExchangeError
from wsi_pipeline.exchange.readers.foreign_file import (
    NOT_FEATURES,
    REMAKE,
    ForeignFile,
    Rows,
    Stated,
    check_floating,
    feature_shape,
    two_columns,
)
from wsi_pipeline.exchange.readers.hdf5_layouts import COORD_NAMES, FEATURE_NAMES
from wsi_pipeline.wording import listed

NPY_MAGIC, ZIP_MAGIC, PICKLE_MAGIC = b"\x93NUMPY", b"PK\x03\x04", b"\x80"
_NAMES = (*FEATURE_NAMES, "x", "X", "arr_0", "data")
_PICKLED = "holds pickled Python objects, which are never loaded: they can run programs"
_MOST_PACKED = 1000
_BAD = (OSError, RuntimeError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, SafetensorError)


def read_npy(path: Path) -> list[ForeignFile]:
    """An array saved by numpy. Raises ExchangeError if it does not hold features."""
    array = _npy(path)
    rows, dim = feature_shape(array.shape, path.name)
    return [_file(path, "npy", rows, dim, check_floating(array.dtype, path.name), partial(_npy, path), None)]


def read_zip(path: Path) -> list[ForeignFile]:
    """An .npz of numpy or a .pt of torch: both are ZIP archives."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            packed = sum(item.compress_size for item in file.infolist())
            size = sum(item.file_size for item in file.infolist())
    except _BAD as error:
        raise ExchangeError(f"{path.name} cannot be read: {error}", todo=REMAKE) from None
    if size > _MOST_PACKED * max(packed, 1 << 16):
        raise ExchangeError(
            f"{path.name} unpacks to {size / 1e9:.2g} GB from {packed / 1e6:.2g} MB",
            todo="If that is right, save it without compression: numpy.savez.",
        )
    if any(name.endswith("/data.pkl") for name in names):
        return read_torch(path)
    if names and all(name.endswith(".npy") for name in names):
        return _named(path, "npz", _npz(path))
    raise ExchangeError(f"{path.name} is a ZIP archive, but not from numpy or torch", todo=NOT_FEATURES)


def read_torch(path: Path) -> list[ForeignFile]:
    """A tensor, or a dictionary of tensors, saved by torch."""
    return _named(path, "pt", _torch(path))


def read_safetensors(path: Path) -> list[ForeignFile]:
    """Tensors saved by safetensors."""
    return _named(path, "safetensors", _safetensors(path))


def may_be_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a header and an opening brace."""
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 100_000_000


def _named(path: Path, kind: str, arrays: Mapping[str, Rows]) -> list[ForeignFile]:
    name = next((name for name in _NAMES if name in arrays), None)
    two_dimensional = [key for key, array in arrays.items() if array.ndim in (2, 3) and key not in COORD_NAMES]
    if name is None and len(two_dimensional) == 1:
        name = two_dimensional[0]
    if name is None:
        raise ExchangeError(
            f"{path.name} holds no array called {' or '.join(FEATURE_NAMES)}, but {listed(arrays) or 'nothing'}",
            todo=f"Save the features as {FEATURE_NAMES[0]}.",
        )
    features = arrays[name]
    what = f"{name} of {path.name}" if len(arrays) > 1 else path.name
    rows, dim = feature_shape(features.shape, what)
    dtype = check_floating(features.dtype, what)
    place = next((key for key in COORD_NAMES if key in arrays), None)
    read = _LOADERS[kind]
    coords = None if place is None else partial(_pick_coords, read, path, place)
    return [_file(path, kind, rows, dim, dtype, partial(_pick, read, path, name), coords)]


def _file(path: Path, kind: str, rows: int, dim: int, dtype: str, features: Any, coords: Any) -> ForeignFile:
    return ForeignFile(path, path.stem, Stated(f".{kind} file"), rows, dim, dtype, features, coords)


def _pick(read: Any, path: Path, name: str) -> Rows:
    rows: Rows = read(path)[name]
    return rows


def _pick_coords(read: Any, path: Path, name: str) -> Rows:
    return two_columns(read(path)[name], f"{name} of {path.name}")


def _npy(path: Path) -> Rows:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except _BAD as error:
        raise _refused(path, error) from None


def _npz(path: Path) -> dict[str, Rows]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _BAD as error:
        raise _refused(path, error) from None


def _torch(path: Path) -> dict[str, Rows]:
    import torch  # seconds, and most imports have no .pt

    try:
        with (
            warnings.catch_warnings(action="ignore"),  # about pickle protocols, which is not for users
            torch.serialization.safe_globals(_numeric_arrays()),
        ):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        raise ExchangeError(f"{path.name} {_PICKLED}", todo="Save the tensor itself, or as .npy or .h5.") from None
    except _BAD as error:
        raise ExchangeError(f"{path.name} cannot be read: {error}", todo=REMAKE) from None
    tensors = {"features": found} if isinstance(found, torch.Tensor | np.ndarray) else found
    if not isinstance(tensors, dict):
        raise ExchangeError(
            f"{path.name} holds a {type(found).__name__}: expected a tensor", todo="Save the tensor itself."
        )
    arrays = {str(key): _array(value) for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    return arrays | {str(key): value for key, value in tensors.items() if isinstance(value, np.ndarray)}


def _numeric_arrays() -> list[Any]:
    """Types that weights-only loading may create besides tensors: NumPy float arrays, as in TRIDENT's .pt files."""
    floats = [type(np.dtype(name)) for name in ("float16", "float32", "float64")]
    made = np.array(0.0).__reduce__()[0]  # numpy._core.multiarray._reconstruct, once numpy.core
    return [(made, "numpy.core.multiarray._reconstruct"), made, np.ndarray, np.dtype, *floats]


def _safetensors(path: Path) -> dict[str, Rows]:
    try:
        with safe_open(path, "pt") as file:
            return {name: _array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except _BAD as error:
        raise ExchangeError(f"{path.name} cannot be read: {error}", todo=REMAKE) from None


def _array(tensor: Any) -> Rows:
    """A tensor as an array; bfloat16, which numpy lacks, as float32, which holds all of its values."""
    tensor = tensor.detach()
    rows: Rows = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return rows


def _refused(path: Path, error: BaseException) -> ExchangeError:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return ExchangeError(f"{path.name} {_PICKLED}", todo="Save the array as numbers (float32).")
    return ExchangeError(f"{path.name} cannot be read: {error}", todo=REMAKE)


_LOADERS = {"npz": _npz, "pt": _torch, "safetensors": _safetensors}
