"""Small files laid out exactly as other tools lay them out; each says whose code it follows.

`benchmarks/exchange/` writes the same with the tools themselves, and reads both.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

Rows = NDArray[Any]
WIDTH, HEIGHT = 1200, 900
"""Level-0 size of the slides."""


def features_of(rows: int, dim: int = 8, seed: int = 0, signal: float = 0.0) -> NDArray[np.float32]:
    """(rows, dim), the first value with a signal."""
    made = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    made[:, 0] += signal
    return made


def coords_of(rows: int, step: int = 128) -> NDArray[np.int64]:
    """(rows, 2): column by column, as CLAM and TRIDENT order them."""
    high = 6
    numbers = np.arange(rows)
    return np.stack([numbers // high * step, numbers % high * step], axis=1).astype(np.int64)


def _save_h5(path: Path, assets: dict[str, Rows], attrs: dict[str, dict[str, Any]], chunk: int) -> Path:
    """Resizable arrays with attributes of their own: `save_h5` of TRIDENT, `save_hdf5` of CLAM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, values in assets.items():
            shape, chunks = values.shape, (chunk, *values.shape[1:])
            array = file.create_dataset(key, shape, values.dtype, maxshape=(None, *shape[1:]), chunks=chunks)
            array[:] = values
            for name, value in attrs.get(key, {}).items():
                array.attrs[name] = "None" if value is None else value
    return path


def trident_attrs(name: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    """Attributes of `coords` (trident/IO.py coords_to_h5, 0.3.0): 64 px at 10x of a slide of 20x."""
    return {
        "patch_size": 64, "patch_size_level0": 128, "level0_magnification": 20, "target_magnification": 10,
        "overlap": 0, "name": name, "savetodir": "job/10x_64px_0px_overlap", "level0_width": size[0],
        "level0_height": size[1],
    }  # fmt: skip


def trident(path: Path, features: Rows, coords: Rows, encoder: str | None = "uni_v1", **attrs: Any) -> Path:
    """features_<encoder>/<slide>.h5 (trident/wsi_objects/WSI.py extract_patch_features, 0.3.0)."""
    of_features = {"name": path.stem, "savetodir": str(path.parent), "encoder": encoder}
    of_coords = {**trident_attrs(path.stem), **attrs}
    return _save_h5(path, {"features": features, "coords": coords}, {"features": of_features, "coords": of_coords}, 1)


def trident_coords(path: Path, coords: Rows, **attrs: Any) -> Path:
    """patches/<slide>_patches.h5."""
    return _save_h5(path, {"coords": coords}, {"coords": {**trident_attrs(path.stem[:-8]), **attrs}}, 1)


def clam(folder: Path, name: str, features: Rows, coords: Rows) -> Path:
    """h5_files/<slide>.h5 and pt_files/<slide>.pt (extract_features_fp.py, 2025-04)."""
    import torch

    assets = {"features": features.astype(np.float32), "coords": coords.astype(np.int32)}
    made = _save_h5(folder / "h5_files" / f"{name}.h5", assets, {}, 32)
    (folder / "pt_files").mkdir(exist_ok=True)
    torch.save(torch.from_numpy(features), folder / "pt_files" / f"{name}.pt")
    return made


def clam_coords(path: Path, coords: Rows, *, level: int = 0, downsample: float = 1.0, patch_size: int = 128) -> Path:
    """patches/<slide>.h5 (wsi_core/WholeSlideImage.py process_contour)."""
    size = (int(WIDTH / downsample), int(HEIGHT / downsample))
    attrs = {
        "patch_size": patch_size, "patch_level": level, "downsample": (downsample, downsample),
        "downsampled_level_dim": size, "level_dim": size, "name": path.stem, "save_path": str(path.parent),
    }  # fmt: skip
    return _save_h5(path, {"coords": coords}, {"coords": attrs}, 32)


def stamp(path: Path, features: Rows, coords_um: Rows, **attrs: Any) -> Path:
    """<slide>.h5 (src/stamp/preprocessing/__init__.py, 2.5.0): tiles of 64 micrometres, 64 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {
        "stamp_version": "2.5.0", "extractor": "mahmood-uni", "unit": "um", "tile_size_um": 64.0, "tile_size_px": 64,
        "code_hash": "0" * 8, "feat_type": "tile",
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        file["coords"], file["feats"] = coords_um.astype(np.float32), features.astype(np.float16)
        for key, value in {**own, **attrs}.items():
            if value is not None:
                file.attrs[key] = value
    return path


def atlas_patch(path: Path, features: dict[str, Rows], coords: Rows) -> Path:
    """patches/<slide>.h5 (atlas_patch/services/storage.py H5PatchWriter, 1.0.0)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = np.tile([128, 128, 0], (len(coords), 1))
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=np.concatenate([coords, sizes], axis=1).astype(np.int32), maxshape=(None, 5))
        file.create_dataset("passports", data=np.array([b"p"] * len(coords), "S160"), maxshape=(None,))
        file.attrs.update(
            {"patch_size": 64, "patch_size_level0": 128, "level0_magnification": 20, "target_magnification": 10,
             "overlap": 0, "level0_width": WIDTH, "level0_height": HEIGHT, "wsi_path": "x", "mpp": 0.5,
             "num_patches": len(coords), "passport_version": 2}
        )  # fmt: skip
        group = file.require_group("features")
        for name, rows in features.items():
            group.create_dataset(name, data=rows.astype(np.float32), maxshape=(None, rows.shape[1]))
    return path


def hs2p(folder: Path, name: str, coords: Rows) -> Path:
    """<slide>.coordinates.npz and .meta.json (hs2p/tiling/io.py _save_tiling_result, 4.4.1)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / f"{name}.coordinates.npz",
        tile_index=np.arange(len(coords), dtype=np.int32),
        x=coords[:, 0],
        y=coords[:, 1],
        tissue_fractions=np.linspace(0.5, 1, len(coords)).astype(np.float32),
    )
    meta = {
        "provenance": {"sample_id": name, "image_path": f"{name}.svs"},
        "slide": {"dimensions": [WIDTH, HEIGHT], "base_spacing_um": 0.5, "level_downsamples": [1.0, 4.0]},
        "tiling": {
            "requested_tile_size_px": 64, "requested_spacing_um": 1.0, "read_level": 0, "read_tile_size_px": 128,
            "read_spacing_um": 0.5, "tile_size_lv0": 128, "tolerance": 0.05, "step_px_lv0": 128, "overlap": 0.0,
            "min_tissue_fraction": 0.1, "is_within_tolerance": False, "n_tiles": len(coords),
        },
        "artifact": {"coordinate_space": "level0_px", "tile_order": "x_then_y"},
    }  # fmt: skip
    path = folder / f"{name}.coordinates.meta.json"
    path.write_text(json.dumps(meta))
    return path


def lazyslide(path: Path, features: Rows, tile_ids: Rows, encoder: str = "uni") -> Path:
    """<slide>.zarr as wsidata 0.12 writes it, without its Parquet (wsidata/io/_elems.py add_features)."""
    root = zarr.open_group(str(path), mode="w", zarr_format=3)
    spec = {"height": 64, "width": 64, "stride_height": 64, "stride_width": 64, "mpp": 1.0, "base_downsample": 2.0}
    slide = {"shape": [HEIGHT, WIDTH], "mpp": 0.5, "magnification": 20.0}
    root.attrs.update({"tile_spec": {"tiles": spec}, "slide_properties": slide})
    table = root.create_group(f"tables/{encoder}_tiles")
    table.create_array("X", data=features)
    table.create_array("obs/tile_id", data=tile_ids)
    region = table.create_array("uns/spatialdata_attrs/region", shape=(), dtype=str)
    region[()] = "tiles"
    return path


def labels_csv(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    """case_id, slide_id, label: CLAM's columns."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("case_id", "slide_id", "label"), *rows])
    return path
