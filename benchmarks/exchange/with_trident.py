"""TRIDENT's and Patho-Bench's own readers on our export: `python with_trident.py EXPORT CSV_EXPORT`.

With checkouts of both on PYTHONPATH, in an environment with their packages. TRIDENT reads the coordinates, pools the
features of a slide by its mean encoder and writes slide features; Patho-Bench loads patients from the same folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
from patho_bench.datasets.PatchEmbeddingsDataset import PatchEmbeddingsDataset
from trident import OpenSlideWSI
from trident.IO import read_coords
from trident.slide_encoder_models.load import MeanSlideEncoder


def read(export: Path, tables: Path) -> None:
    """Compare what TRIDENT makes of two slides with the CSV export."""
    base = next(path for path in export.iterdir() if path.name.endswith("overlap"))
    encoder = MeanSlideEncoder(model_name="mean-colour")
    for name in ("s0", "s1"):
        plain = pd.read_csv(tables / "patches" / f"{name}.csv")
        attrs, coords = read_coords(str(base / "patches" / f"{name}_patches.h5"))
        np.testing.assert_array_equal(coords, plain[["x", "y"]])
        assert attrs["patch_size_level0"] == plain["side"][0]
        slide = OpenSlideWSI(slide_path=f"{name}.svs", name=name, lazy_init=True)
        with tempfile.TemporaryDirectory() as place:
            made = slide.extract_slide_features(str(base / "features_colour" / f"{name}.h5"), encoder, place, "cpu")
            with h5py.File(made) as file:
                pooled = file["features"][:]
        np.testing.assert_allclose(pooled, plain.filter(regex=r"^colour_\d").mean(), atol=1e-6)
    print(f"TRIDENT on {export}: coordinates equal, slide features are the mean of the patches'")


def load(export: Path) -> None:
    """Patients of two slides each, as Patho-Bench puts them together."""
    base = next(path for path in export.iterdir() if path.name.endswith("overlap"))
    samples = [{"id": f"p{k}", "slide_id": [f"s{2 * k}", f"s{2 * k + 1}"]} for k in range(4)]
    split = SimpleNamespace(data=samples, num_folds=1)
    data = PatchEmbeddingsDataset(split, str(base / "features_colour"))
    bag = data["p1"]
    print(f"Patho-Bench on {export}: {len(data)} patients, p1 {tuple(bag['features'].shape)} {bag['features'].dtype}")


if __name__ == "__main__":
    read(Path(sys.argv[1]), Path(sys.argv[2]))
    load(Path(sys.argv[1]))
