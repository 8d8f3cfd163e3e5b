"""SpatialData on our export: `python with_spatialdata.py SPATIALDATA_EXPORT CSV_EXPORT [STORE.zarr]`.

Reads every slide, compares with the CSV export, writes and reads again; then opens a Zarr store of the run as it is.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import spatialdata

warnings.simplefilter("ignore")


def read_spatialdata(export: Path, tables: Path) -> None:
    """Every .zarr: elements, extents in level-0 pixels, patches in a box, and the table of those."""
    for path in sorted(export.glob("*.zarr")):
        data = spatialdata.read_zarr(path)
        plain = pd.read_csv(tables / "patches" / f"{path.stem}.csv")
        np.testing.assert_array_equal(data["colour"].X, plain.filter(regex=r"^colour_\d").to_numpy(np.float32))
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
    read_spatialdata(Path(sys.argv[1]), Path(sys.argv[2]))
    if len(sys.argv) > 3:
        open_store(Path(sys.argv[3]))
