"""Does the cost of a patch stay what it is as slides grow? Grids and stores of a thousand to a million patches.

    python benchmarks/growth.py [--most 1000000]

Microseconds a patch, the best of three: laying the grid over a mask that is all tissue, writing and reading the patch
store, writing and reading a feature store (192 values, float16). The cost of a slide
as cohorts grow is in `python -m benchmarks.torture.long_run`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsi_pipeline.geometry import Size
from wsi_pipeline.store.schema import FEATURE_FORMAT, PATCH_FORMAT, Header, SlideIdentity
from wsi_pipeline.store.tables.feature_table import read_feature_table, write_features
from wsi_pipeline.store.tables.patch_table import read_patch_table, write_patches
from wsi_pipeline.tiling.grid import lay_grid
from wsi_pipeline.tiling.resolve import PatchGeometry
from wsi_pipeline.tissue.mask import TissueMask

MPP, PATCH, DIM = 0.25, 512, 192
SPECS = {"tile": {"overlap_px": 0, "mpp": 0.5}}
GEOMETRY = PatchGeometry(
    patch_px=256, patch_level0=PATCH, stride_level0=PATCH, level=0, level_px=PATCH, mpp=0.5, resampled=False
)


def identity(side: int) -> SlideIdentity:
    """A slide that nobody opens."""
    return SlideIdentity("s", "s.svs", side, side, "v", "openslide", 40.0, MPP, MPP, "slide", "d")


def fastest(work: Callable[[], object]) -> float:
    """Seconds, the best of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def row(patches: int, folder: Path) -> dict[str, float]:
    """Microseconds a patch of each work, on a square slide of about so many patches."""
    side = PATCH * round(patches**0.5)
    size = Size(side, side)
    mask = TissueMask(np.ones((side // 32, side // 32), bool), size, MPP)
    grid = lay_grid(mask, PATCH, PATCH, 0.1)
    slide = identity(side)
    features = np.random.default_rng(0).normal(size=(len(grid), DIM)).astype(np.float16)
    tiled, embedded = folder / "patches.h5", folder / "features.h5"
    header = Header(PATCH_FORMAT, "d", "p", slide, SPECS, {})
    own = Header(FEATURE_FORMAT, "d", "p", slide, SPECS, {})
    works = {
        "grid": lambda: lay_grid(mask, PATCH, PATCH, 0.1),
        "write patches": lambda: write_patches(tiled, header, GEOMETRY, grid),
        "read patches": lambda: read_patch_table(tiled),
        "write features": lambda: write_features(embedded, own, GEOMETRY, grid.coords, features),
        "read features": lambda: read_feature_table(embedded),
    }
    return {"patches": len(grid), **{name: fastest(work) / len(grid) * 1e6 for name, work in works.items()}}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000)
    most = parser.parse_args().most
    with tempfile.TemporaryDirectory() as folder:
        for number in (patches for patches in (1_000, 10_000, 100_000, 1_000_000) if patches <= most):
            found = row(number, Path(folder))
            if number == 1_000:
                print("".join(f"{name:>16}" for name in found) + "     (microseconds a patch)")
            told = "".join(f"{value:>16.2f}" for name, value in found.items() if name != "patches")
            print(f"{found['patches']:>16,.0f}" + told, flush=True)


if __name__ == "__main__":
    main()
