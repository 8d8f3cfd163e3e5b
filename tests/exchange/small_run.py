"""A run folder with all stores and no slide: what exports read. Seconds are saved where nothing is tiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.geometry import Size
from wsi_pipeline.store.schema import FEATURE_FORMAT, PATCH_FORMAT, SEGMENT_FORMAT, Header, SlideIdentity
from wsi_pipeline.store.tables.feature_table import write_features
from wsi_pipeline.store.tables.patch_labels import write_labels
from wsi_pipeline.store.tables.patch_table import write_patches
from wsi_pipeline.store.tables.segment_table import write_segment
from wsi_pipeline.tiling.grid import PatchGrid
from wsi_pipeline.tiling.resolve import PatchGeometry
from wsi_pipeline.tissue.mask import TissueMask

PATCH_PX, SIDE, STRIDE, MPP, DIM = 32, 64, 48, 0.5, 5
GEOMETRY = PatchGeometry(PATCH_PX, SIDE, STRIDE, 0, SIDE, 1.0, False)
SPECS = {"segment": {}, "tile": {"patch_px": PATCH_PX, "mpp": 1.0, "overlap_px": 8}, "embed": {"model": "colour"}}
ENCODER = {"name": "colour", "fingerprint": "f", "dim": DIM, "licence": "Apache-2.0"}
NAMES = ("s0", "s1", "s2", "s3")
CLASSES = ("stroma", "tumour")


def small_run(root: Path, slides: int = 4, signal: float = 0.0) -> Path:
    """Slides s0, s1, ... of classes a and b by turns, and `blank` without patches; the patches of s0 are labelled.

    signal   added to the features of class b
    """
    run = RunDir(root)
    rows = []
    for number, name in enumerate((*(f"s{k}" for k in range(slides)), "blank")):
        patches = 0 if name == "blank" else 12 + number % 8
        _stores(run, name, number, patches, signal * (number % 2))
        label = "a" if name == "blank" else "ab"[number % 2]
        rows.append({"slide_id": name, "path": f"{name}.svs", "patient_id": f"p{number}", "label": label})
    pd.DataFrame(rows).to_csv(run.cohort_csv, index=False)
    write_labels(run.patch_store("s0"), np.arange(12) % 3 - 1, CLASSES)
    return root


def _stores(run: RunDir, name: str, number: int, patches: int, signal: float) -> None:
    rng = np.random.default_rng(number)
    identity = SlideIdentity(name, f"{name}.svs", 640, 480, "aperio", "openslide", 20.0, MPP, MPP, "slide", name)

    def header(kind: str, digest: str, parent: str, **extra: object) -> Header:
        return Header(kind, f"{digest} {name}", f"{parent} {name}", identity, SPECS, extra)

    for path in (run.segment_store(name), run.patch_store(name), run.feature_store("colour", name)):
        path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((48, 64), np.bool_)
    pixels[8:40, 8:56] = True
    thumbnail = rng.integers(0, 255, (120, 160, 3), np.uint8)
    mask = TissueMask(pixels, Size(640, 480), MPP)
    write_segment(run.segment_store(name), header(SEGMENT_FORMAT, "segment", "slide", warning=""), mask, thumbnail)
    places = np.stack(np.meshgrid(np.arange(2, 6), np.arange(1, 6)), axis=-1).reshape(-1, 2)[:patches]
    grid = PatchGrid((places * STRIDE).astype(np.int64), rng.random(patches).astype(np.float32))
    images = rng.integers(0, 255, (patches, PATCH_PX, PATCH_PX, 3), np.uint8)
    write_patches(
        run.patch_store(name), header(PATCH_FORMAT, "tile", "segment"), GEOMETRY, grid,
        images=[(0, images)] if patches else [],
    )  # fmt: skip
    features = (signal + rng.normal(size=(patches, DIM))).astype(np.float16)
    write_features(
        run.feature_store("colour", name), header(FEATURE_FORMAT, "embed", "tile", encoder=ENCODER), GEOMETRY,
        grid.coords, features,
    )  # fmt: skip
