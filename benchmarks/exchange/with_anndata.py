"""anndata on our export: `python with_anndata.py ANNDATA_EXPORT CSV_EXPORT`. Also run by tests/exchange."""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import pandas as pd


def read_anndata(export: Path, tables: Path) -> anndata.AnnData:
    """Read every .h5ad, compare it with the CSV export, join all of them, write that and read it again.

    Returns the joined table. Raises AssertionError where values differ.
    """
    found = {path.stem: anndata.read_h5ad(path) for path in sorted(export.glob("*.h5ad"))}
    for name, data in found.items():
        plain = pd.read_csv(tables / "patches" / f"{name}.csv")
        np.testing.assert_array_equal(data.X, plain.filter(regex=r"^colour_\d").to_numpy(np.float32))
        np.testing.assert_array_equal(data.obsm["spatial"], plain[["x", "y"]] + plain[["side"]].to_numpy() / 2)
        if "label" in plain and plain["label"].notna().any():
            marks = data.obs["patch_label"].astype(object)
            assert marks.where(marks.notna(), "").tolist() == plain["label"].fillna("").tolist()
    together = anndata.concat(found.values())
    assert together.obs_names.is_unique
    assert len(together) == sum(map(len, found.values()))
    # Texts are a type of their own in pandas 3, which anndata reads, but writes only if it is allowed to.
    allowed = anndata.settings.override(allow_write_nullable_strings=True)
    with allowed, tempfile.TemporaryDirectory() as place:
        together.write_h5ad(Path(place) / "all.h5ad")
        again = anndata.read_h5ad(Path(place) / "all.h5ad")
    np.testing.assert_array_equal(again.X, together.X)
    image = found["s0"].uns["spatial"]["s0"]["images"]["hires"]
    print(f"anndata {version('anndata')}: {len(found)} slides, together {together.shape}, thumbnail {image.shape}")
    return again


if __name__ == "__main__":
    read_anndata(Path(sys.argv[1]), Path(sys.argv[2]))
