"""anndata and spatialdata on our exports: `python with_scverse.py ANNDATA SPATIALDATA CSV [STORE.zarr]`.

Reads every slide, compares with the CSV export, writes and reads again; then opens a Zarr store of the run as it is.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import spatialdata

warnings.simplefilter("ignore")


def read_anndata(export: Path, tables: Path) -> None:
    """Every .h5ad, and all of them together."""
    paths = sorted(export.glob("*.h5ad"))
    found = {path.stem: anndata.read_h5ad(path) for path in paths}
    for name, data in found.items():
        plain = pd.read_csv(tables / "patches" / f"{name}.csv")
        np.testing.assert_array_equal(data.X, plain.filter(regex=r"^f\d").to_numpy(np.float32))
        np.testing.assert_array_equal(data.obsm["spatial"], plain[["x", "y"]] + plain[["side"]].to_numpy() / 2)
    together = anndata.concat(found.values())
    assert together.obs_names.is_unique
    with tempfile.TemporaryDirectory() as place:
        together.write_h5ad(Path(place) / "all.h5ad")
    image = found["s0"].uns["spatial"]["s0"]["images"]["hires"]
    print(f"anndata {version('anndata')}: {len(found)} slides, together {together.shape}, thumbnail {image.shape}")


def read_spatialdata(export: Path, tables: Path) -> None:
    """Every .zarr: elements, extents in level-0 pixels, patches in a box, and the table of those."""
    for path in sorted(export.glob("*.zarr")):
        data = spatialdata.read_zarr(path)
        plain = pd.read_csv(tables / "patches" / f"{path.stem}.csv")
        np.testing.assert_array_equal(data["colour"].X, plain.filter(regex=r"^f\d").to_numpy(np.float32))
        bounds = data["tiles"].bounds
        np.testing.assert_array_equal(bounds[["minx", "miny"]], plain[["x", "y"]])
        np.testing.assert_array_equal(bounds["maxx"] - bounds["minx"], plain["side"])
        extent = spatialdata.get_extent(data["thumbnail"])
        assert (round(extent["x"][1]), round(extent["y"][1])) == (640, 480)
    some = spatialdata.bounding_box_query(
        data, axes=("x", "y"), min_coordinate=[0, 0], max_coordinate=[200, 200], target_coordinate_system="global"
    )
    kept = ((plain["x"] <= 200) & (plain["y"] <= 200)).sum()
    assert len(some["tiles"]) == len(some["colour"]) == kept
    with tempfile.TemporaryDirectory() as place:
        data.write(Path(place) / "again.zarr")
        again = spatialdata.read_zarr(Path(place) / "again.zarr")
        print(
            f"spatialdata {version('spatialdata')}: {kept} patches of the last slide in a box; written and read again:"
        )
        print(again)


def open_store(path: Path) -> None:
    """A Zarr store of the run as it is: SpatialData opens it and finds no elements in it."""
    print(f"{path} as it is: {spatialdata.read_zarr(path)}")


if __name__ == "__main__":
    read_anndata(Path(sys.argv[1]), Path(sys.argv[3]))
    read_spatialdata(Path(sys.argv[2]), Path(sys.argv[3]))
    if len(sys.argv) > 4:
        open_store(Path(sys.argv[4]))
