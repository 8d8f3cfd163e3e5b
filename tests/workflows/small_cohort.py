"""A small cohort as real slide files, with the configuration of a whole run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.slide_files import tissue_like, write_pyramid_tiff

CORRUPT, MISSING = "corrupt", "missing"
CONFIG = """
slides: slides.csv
run: run
chunk: 5
tile: {patch-px: 128, mpp: 1.0}
embed: [{model: colour}]
embed-slides: {model: mean}
train-mil: {folds: 2, epochs: 3, bootstrap: 100}
predict:
"""


def write_small_cohort(folder: Path) -> Path:
    """Write four good slides, a corrupt one among them and, in a chunk of its own, one that is not there."""
    rows = ["slide_id,path,patient_id,label"]
    for i in range(4):
        rgb = np.full((1024, 1024, 3), 255, np.uint8)
        rgb[128:896, 128:896] = tissue_like(768, 768, i)
        write_pyramid_tiff(folder / f"s {i}.tif", rgb, mpp=0.5)
        rows.append(f"s {i},s {i}.tif,p{i},{'ab'[i % 2]}")
    (folder / f"{CORRUPT}.tif").write_bytes(b"IJrE" * 200)
    rows.insert(3, f"{CORRUPT},{CORRUPT}.tif,p5,a")
    rows.append(f"{MISSING},{MISSING}.tif,p6,b")
    (folder / "slides.csv").write_text("\n".join(rows) + "\n")
    (folder / "config.yaml").write_text(CONFIG)
    return folder
