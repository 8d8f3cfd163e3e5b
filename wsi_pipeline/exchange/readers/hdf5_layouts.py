"""HDF5 files of other tools, recognised by the names and attributes inside.

TRIDENT     features (N, D) or (1, N, D) with its attribute `encoder`, coords (N, 2) with `patch_size_level0` and
            others; `patches/*_patches.h5` has coords only         (trident/IO.py save_h5, coords_to_h5; 0.3.0);
            `slide_features_<slide encoder>/*.h5`: features (D,)   (wsi_objects/WSI.py extract_slide_features)
CLAM        features (N, D) and coords (N, 2) without attributes; `patches/*.h5` has coords only, with
            `patch_level`, `downsample`      (utils/file_utils.py save_hdf5, wsi_core/WholeSlideImage.py; 2025-04)
STAMP       feats (N, D), coords (N, 2) in micrometres, attributes of the file
                                                     (src/stamp/preprocessing, modeling/data.py get_coords; 2.5.0)
AtlasPatch  features/<encoder> (N, D), one for each encoder, coords (N, 5), attributes of the file
                                                     (atlas_patch/services/storage.py H5PatchWriter; 1.0.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wsi_pipeline.errors import ExchangeError
from wsi_pipeline.exchange.readers.foreign_file import (
    NOT_FEATURES,
    REMAKE,
    ForeignFile,
    Rows,
    Stated,
    check_floating,
    feature_shape,
    grid_spacing,
    two_columns,
)
from wsi_pipeline.exchange.readers.trident_slide_vectors import embedding_in

MAGIC = b"\x89HDF\r\n\x1a\n"
FEATURE_NAMES = ("features", "feats", "embeddings")
COORD_NAMES = ("coords", "coordinates")
_STAMP_1_PX, _STAMP_1_UM = 224.0, 256.0
"""Old STAMP counts in pixels of which 224 are 256 micrometres."""
_EMPTY_FACTOR, _SMALL = 100, 64 << 20
_BAD = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


def read_hdf5(path: Path) -> list[ForeignFile]:
    """What an HDF5 file holds: one set of rows, or one for each encoder. Raises ExchangeError for anything else."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _layout(file, path)
    except _BAD as error:
        raise ExchangeError(f"{path.name} cannot be read: {error}", todo=REMAKE) from None


def _layout(file: h5py.File, path: Path) -> list[ForeignFile]:
    attrs = _plain(file.attrs)
    if str(attrs.get("format", "")).startswith("wsi-pipeline/"):
        raise ExchangeError(
            f"{path.name} is a store of wsi-pipeline, not of another tool", todo="Use it where it is: --run FOLDER"
        )
    coords = _dataset(file, COORD_NAMES)
    if isinstance(_link(file, "features"), h5py.Group):
        return _atlas_patch(file, path, attrs, coords)
    features = _dataset(file, FEATURE_NAMES)
    if features is None and coords is None:
        names = ", ".join(sorted(file)) or "nothing"
        raise ExchangeError(
            f"{path.name} holds neither features nor coordinates, but {names}",
            todo="Save features as `features` (patches, features), coordinates as `coords` (patches, 2).",
        )
    of_coords = _plain(coords.attrs) if coords is not None else {}
    if features is not None and features.name == "/feats":
        stated = _stamp(attrs, coords, path)
    elif {"patch_size_level0", "target_magnification"} & set(of_coords):
        stated = _trident(of_coords, _plain(features.attrs) if features is not None else {})
    elif "patch_level" in of_coords:
        stated = _clam(of_coords)
    elif features is None:
        raise ExchangeError(
            f"{path.name} holds coordinates that do not state the size of their patches",
            todo="Add TRIDENT's attributes to coords: patch_size and patch_size_level0.",
        )
    else:
        encoder = _word(_plain(features.attrs).get("encoder"))
        stated = Stated("CLAM layout" if coords is not None else "HDF5", encoder=encoder)
    return [_made(path, stated, features, coords)]


def _made(path: Path, stated: Stated, features: h5py.Dataset | None, coords: h5py.Dataset | None) -> ForeignFile:
    scale = _STAMP_1_UM / _STAMP_1_PX if stated.version == "1" and stated.tool == "STAMP" else 1.0
    read_coords = None if coords is None else partial(_coords, path, coords.name, scale)
    name = path.stem
    if features is None:
        assert coords is not None
        name = name.removesuffix("_patches")
        rows = coords.shape[1] if coords.ndim == 3 else coords.shape[0]
        return ForeignFile(path, name, stated, rows, coords=read_coords)
    what = f"{features.name.lstrip('/')} of {path.name}"
    embedding = embedding_in(path.parent.name) if features.ndim == 1 and features.size else ""
    if embedding:
        return _slide_vector(path, replace(stated, tool="TRIDENT", encoder=embedding), features, coords)
    rows, dim = feature_shape(tuple(features.shape), what)
    dtype = check_floating(features.dtype, what)
    _check_stored(features, what)
    return ForeignFile(path, name, stated, rows, dim, dtype, partial(_rows, path, features.name), read_coords)


def _slide_vector(path: Path, stated: Stated, features: h5py.Dataset, coords: h5py.Dataset | None) -> ForeignFile:
    """A slide embedding, as one row; the coordinates beside it are those of the patches that it pools."""
    dtype = check_floating(features.dtype, f"{features.name.lstrip('/')} of {path.name}")
    _check_stored(features, path.name)
    pools = coords.shape[-2] if coords is not None and coords.ndim > 1 else 0
    read = partial(_vector, path, features.name)
    return ForeignFile(path, path.stem, stated, 1, features.size, dtype, read, named_by="folder", pools=pools)


def _trident(coords: Mapping[str, Any], features: Mapping[str, Any]) -> Stated:
    return Stated(
        "TRIDENT",
        encoder=_word(features.get("encoder")),
        patch_px=_whole(coords.get("patch_size")),
        patch_level0=_whole(coords.get("patch_size_level0")),
        overlap_px=_whole(coords.get("overlap"), zero=True),
        magnification=_number(coords.get("target_magnification")),
        slide_magnification=_number(coords.get("level0_magnification")),
        slide_width=_whole(coords.get("level0_width")),
        slide_height=_whole(coords.get("level0_height")),
    )


def _clam(coords: Mapping[str, Any]) -> Stated:
    patch_px, downsample = _whole(coords.get("patch_size")), coords.get("downsample")
    factor = _number(np.ravel(downsample)[0]) if downsample is not None else None
    sizes = np.ravel(coords["level_dim"]) if "level_dim" in coords else np.zeros(0)
    of_level0 = coords.get("patch_level") == 0 and len(sizes) == 2
    return Stated(
        "CLAM",
        patch_px=patch_px,
        patch_level0=round(patch_px * factor) if patch_px and factor else None,
        slide_width=int(sizes[0]) if of_level0 else None,
        slide_height=int(sizes[1]) if of_level0 else None,
    )


def _stamp(attrs: Mapping[str, Any], coords: h5py.Dataset | None, path: Path) -> Stated:
    if attrs.get("feat_type", "tile") != "tile":
        raise ExchangeError(
            f"{path.name} holds features of a whole {attrs['feat_type']}, not of patches",
            todo="Name the folder of STAMP's tile features (stamp preprocess).",
        )
    version, encoder = _word(attrs.get("stamp_version")), _word(attrs.get("extractor"))
    side = _number(attrs.get("tile_size_um", attrs.get("tile_size") if attrs.get("unit") == "um" else None))
    if side is None:
        old = coords is not None and grid_spacing(two_columns(coords[:], "coords")) == _STAMP_1_PX
        if not old:
            return Stated("STAMP", version, encoder)
        return Stated("STAMP", "1", encoder, patch_px=224, unit="micrometres", patch_um=_STAMP_1_UM)
    patch_px = _whole(attrs.get("tile_size_px"))
    mpp = side / patch_px if patch_px else None
    return Stated("STAMP", version, encoder, patch_px=patch_px, mpp=mpp, unit="micrometres", patch_um=side)


def _atlas_patch(
    file: h5py.File, path: Path, attrs: Mapping[str, Any], coords: h5py.Dataset | None
) -> list[ForeignFile]:
    found = []
    for encoder in sorted(file["features"]):
        features = _link(file["features"], encoder)
        if encoder.startswith("__tmp_") or not isinstance(features, h5py.Dataset):
            continue
        as_trident = _trident(attrs, {})
        stated = replace(as_trident, tool="AtlasPatch", encoder=encoder, slide_mpp=_number(attrs.get("mpp")))
        found.append(_made(path, stated, features, coords))
    if not found:
        raise ExchangeError(f"{path.name} holds no features of any encoder", todo=NOT_FEATURES)
    return found


def _dataset(file: h5py.File, names: tuple[str, ...]) -> h5py.Dataset | None:
    found = (_link(file, name) for name in names)
    return next((item for item in found if isinstance(item, h5py.Dataset)), None)


def _link(group: h5py.Group, name: str) -> Any:
    """The object called `name` in this file; links into other files are not followed."""
    if name not in group or isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return None
    item = group[name]
    if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise ExchangeError(f"{name} lies in another file", todo="Save the array itself into the file.")
    return item


def _check_stored(array: h5py.Dataset, what: str) -> None:
    """Refuse an array whose stated shape is far larger than its stored data: memory is allocated by shape."""
    size = array.size * array.dtype.itemsize
    if size > _SMALL and size > _EMPTY_FACTOR * array.id.get_storage_size():
        raise ExchangeError(f"{what} has the shape {array.shape}, but the file holds far less", todo=REMAKE)


def _rows(path: Path, name: str) -> Rows:
    return _read(path, name)


def _vector(path: Path, name: str) -> Rows:
    return _read(path, name)[None]


def _coords(path: Path, name: str, scale: float) -> Rows:
    found = two_columns(_read(path, name), f"{name.lstrip('/')} of {path.name}")
    return found if scale == 1.0 else found * scale


def _read(path: Path, name: str) -> Rows:
    try:
        with h5py.File(path, "r", locking=False) as file:
            array = file[name]
            _check_stored(array, f"{name.lstrip('/')} of {path.name}")
            return np.asarray(array[()])
    except _BAD as error:
        raise ExchangeError(f"{path.name} cannot be read: {error}", todo=REMAKE) from None


def _plain(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in attrs.items()}


def _word(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
    return "" if text.strip().lower() in ("", "none") else text.strip()


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) and found > 0 else None


def _whole(value: Any, *, zero: bool = False) -> int | None:
    if zero and value == 0:
        return 0
    found = _number(value)
    return round(found) if found is not None else None
