"""Coordinates of hs2p: `<slide>.coordinates.npz` (x, y, tissue_fractions) beside `<slide>.coordinates.meta.json`.

Level-0 pixels of the top left corner. Source: hs2p/tiling/io.py, 4.4 and 6.1. A slide without tiles has no .npz.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsi_pipeline.errors import ExchangeError
from wsi_pipeline.exchange.readers.foreign_file import REMAKE, ForeignFile, Rows, Stated
from wsi_pipeline.wording import counted

ENDING, META = ".coordinates.npz", ".coordinates.meta.json"
_MOST_BYTES = 16 << 20
_BAD = (OSError, ValueError, LookupError, TypeError, AttributeError)


def read_hs2p(meta: Path) -> list[ForeignFile]:
    """The tiles that a .coordinates.meta.json describes. Raises ExchangeError if it cannot be interpreted."""
    try:
        if meta.stat().st_size > _MOST_BYTES:
            raise ExchangeError(f"{meta.name} is too large to be hs2p's", todo=REMAKE)
        document = json.loads(meta.read_text(encoding="utf-8"))
        tiling, slide = document["tiling"], document["slide"]
        if document["artifact"]["coordinate_space"] != "level0_px":
            space = document["artifact"]["coordinate_space"]
            raise ExchangeError(
                f"{meta.name} has coordinates in {space}, not level-0 pixels",
                todo="Tile the slide again with a version of hs2p that writes level0_px.",
            )
        rows, stated = int(tiling["n_tiles"]), _stated(tiling, slide)
    except _BAD as error:
        raise ExchangeError(f"{meta.name} is not hs2p's: {type(error).__name__} {error}", todo=REMAKE) from None
    npz = meta.with_name(meta.name.removesuffix(META) + ENDING)
    name = str(document.get("provenance", {}).get("sample_id") or meta.name.removesuffix(META))
    if rows and not npz.is_file():
        raise ExchangeError(
            f"{npz.name} is missing: {meta.name} lists {counted(rows, 'tile')}", todo="Copy both files into the folder."
        )
    coords, coverage = (partial(read, npz, rows) for read in (_coords, _coverage))
    return [ForeignFile(npz if rows else meta, name, stated, rows, coords=coords, coverage=coverage)]


def _stated(tiling: Mapping[str, Any], slide: Mapping[str, Any]) -> Stated:
    width, height = slide["dimensions"]
    overlap, patch_px = float(tiling["overlap"]), int(tiling["requested_tile_size_px"])
    return Stated(
        "hs2p",
        patch_px=patch_px,
        patch_level0=int(tiling["tile_size_lv0"]),
        overlap_px=round(overlap * patch_px) if overlap < 1 else round(overlap),
        mpp=float(tiling["requested_spacing_um"]),
        slide_mpp=slide.get("base_spacing_um"),
        slide_width=int(width),
        slide_height=int(height),
    )


def _coords(npz: Path, rows: int) -> Rows:
    return np.stack([_column(npz, rows, "x"), _column(npz, rows, "y")], axis=1)


def _coverage(npz: Path, rows: int) -> Rows:
    return _column(npz, rows, "tissue_fractions")


def _column(npz: Path, rows: int, name: str) -> Rows:
    if rows == 0:
        return np.zeros(0, np.int64)
    try:
        with np.load(npz, allow_pickle=False) as file:
            column: Rows = file[name]
    except _BAD as error:
        raise ExchangeError(f"{npz.name} cannot be read: {error}", todo=REMAKE) from None
    if column.shape != (rows,):
        raise ExchangeError(
            f"{npz.name}: {name} has the shape {column.shape}, but its .meta.json lists {counted(rows, 'tile')}",
            todo="The two files come from different runs: copy both again.",
        )
    return column
