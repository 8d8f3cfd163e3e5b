"""Zarr folders of LazySlide (wsidata 0.12): one slide each, a table of features for each encoder and kind of tile.

    tables/<encoder>_<tiles>   AnnData: X (N, D), obs/tile_id (N,), uns/spatialdata_attrs/region: name of the tiles
    shapes/<tiles>/shapes.parquet   tile_id, x, y: level-0 pixels of the top left corner
    attributes of the root     tile_spec/<tiles> (sizes, mpp), slide_properties (shape, mpp, magnification)

Source: wsidata/io/_elems.py add_features and add_tiles, wsidata/_model/tile.py TileSpec. Rows of a table belong to
tiles by `tile_id`, not by their order. The shapes are Parquet: coordinates need the package pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsi_pipeline.errors import ExchangeError
from wsi_pipeline.exchange.readers.foreign_file import (
    REMAKE,
    ForeignFile,
    Rows,
    Stated,
    check_floating,
    feature_shape,
)
from wsi_pipeline.wording import counted, listed

_BAD = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)
NO_TABLE = "Extract features first (lazyslide.tl.feature_extraction) and write the slide again."
SQUARE = "Tile the slide again with square tiles (lazyslide.pp.tile_tissues)."
NO_PARQUET = "its coordinates are in a Parquet file, which needs the package pyarrow: pip install pyarrow"


def is_wsidata(path: Path) -> bool:
    """Whether a folder is a Zarr group that may hold tables of features."""
    return (path / "tables").is_dir() and ((path / "zarr.json").is_file() or (path / ".zgroup").is_file())


def read_wsidata(path: Path) -> list[ForeignFile]:
    """The tables of features in a Zarr folder. Raises ExchangeError if there is none."""
    try:
        group = _open(path)
        attrs = dict(group.attrs)
        tables: Any = group["tables"]
        found = [made for name in sorted(tables.group_keys()) if (made := _table(path, tables[name], name, attrs))]
    except _BAD as error:
        raise ExchangeError(f"{path.name} cannot be read: {error}", todo=REMAKE) from None
    if not found:
        raise ExchangeError(f"{path.name} holds no table with features of tiles", todo=NO_TABLE)
    return found


def _open(path: Path) -> Any:
    """The group as it is on disk: consolidated metadata hides the tables that were added after it was written."""
    import zarr  # half a second that other files do not need

    return zarr.open_group(str(path), mode="r", use_consolidated=False)


def _table(path: Path, table: Any, name: str, attrs: Mapping[str, Any]) -> ForeignFile | None:
    if "X" not in table or not hasattr(table["X"], "shape") or "uns/spatialdata_attrs/region" not in table:
        return None  # X is missing or sparse: a table of cells or genes
    tiles = str(np.asarray(table["uns/spatialdata_attrs/region"][()]).item())
    spec = (attrs.get("tile_spec") or {}).get(tiles)
    if not isinstance(spec, Mapping):
        return None
    what = f"table {name} of {path.name}"
    rows, dim = feature_shape(tuple(table["X"].shape), what)
    dtype = check_floating(table["X"].dtype, what)
    parquet = path / "shapes" / tiles / "shapes.parquet"
    readable = parquet.is_file() and _pyarrow() is not None
    return ForeignFile(
        path,
        path.stem,
        _stated(name.removesuffix(f"_{tiles}"), spec, attrs.get("slide_properties") or {}),
        rows,
        dim,
        dtype,
        partial(_array, path, f"tables/{name}/X"),
        partial(_coords, path, name, parquet) if readable else None,
        note="" if readable or not parquet.is_file() else NO_PARQUET,
    )


def _stated(encoder: str, spec: Mapping[str, Any], slide: Mapping[str, Any]) -> Stated:
    width, height = int(spec["width"]), int(spec["height"])
    if width != height:
        raise ExchangeError(f"its tiles are {width} x {height} pixels: only square ones are read", todo=SQUARE)
    shape = slide.get("shape") or (None, None)
    return Stated(
        "LazySlide",
        encoder=encoder,
        patch_px=width,
        patch_level0=int(width * float(spec.get("base_downsample", 1.0))),
        overlap_px=max(0, width - int(spec.get("stride_width", width))),
        mpp=spec.get("mpp"),
        slide_mpp=slide.get("mpp"),
        slide_magnification=slide.get("magnification"),
        slide_width=shape[1],
        slide_height=shape[0],
    )


def _array(path: Path, place: str) -> Rows:
    try:
        array: Any = _open(path)[place]
        return np.asarray(array[:])
    except _BAD as error:
        raise ExchangeError(f"{path.name} cannot be read: {error}", todo=REMAKE) from None


def _coords(path: Path, table: str, parquet: Path) -> Rows:
    """x and y of each row of the table, found by its tile_id."""
    ids = _array(path, f"tables/{table}/obs/tile_id")
    pyarrow = _pyarrow()
    try:
        read = pyarrow.read_table(parquet, columns=["tile_id", "x", "y"])
        of_tiles, x, y = (np.asarray(read[name]) for name in ("tile_id", "x", "y"))
    except _BAD as error:
        raise ExchangeError(f"{parquet} cannot be read: {error}", todo=REMAKE) from None
    order = np.argsort(of_tiles, kind="stable")
    places = np.searchsorted(of_tiles, ids, sorter=order)
    found = order[np.minimum(places, max(0, len(order) - 1))] if len(order) else np.zeros(len(ids), np.int64)
    known = (places < len(order)) & (of_tiles[found] == ids) if len(order) else np.zeros(len(ids), bool)
    if not known.all():
        missing = listed([str(one) for one in np.asarray(ids)[~known][:20]])
        raise ExchangeError(
            f"{path.name}: no tile for {counted(int((~known).sum()), 'row')} of table {table} (tile_id {missing})",
            todo="Tile the slide and extract its features again in LazySlide.",
        )
    return np.stack([x[found], y[found]], axis=1)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as found  # optional, and large
    except ImportError:
        return None
    return found
