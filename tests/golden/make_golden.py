"""Make one small store of every kind, and a trained model, from tiny synthetic slides.

    python tests/golden/make_golden.py tests/golden/v2

The folders v1 and v2 are kept in version control as those format versions were first written; today's code must read
them (tests/store/test_golden.py). Once a version is released, never make its folder anew: when the format changes,
raise the version and make another one beside them. Zarr folders are zipped, to be one file each.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.slide_files import write_generic_tiff  # noqa: E402
from wsi_pipeline.cli import main as wsi_pipeline  # noqa: E402

SUFFIXES = {"hdf5": ".h5", "zarr": ".zarr"}
PIXELS = ("none", "jpeg", "raw")
WIDTH, HEIGHT, MPP = 320, 256, 2.0
TILE_OPTIONS = (
    ("--mask-mpp", "4"), ("--patch-px", "24"), ("--mpp", "4"), ("--overlap-px", "6"), ("--min-coverage", "0.9"),
)  # fmt: skip
MIL_OPTIONS = (
    ("--folds", "2"), ("--epochs", "3"), ("--hidden-dim", "8"), ("--attention-dim", "4"), ("--bootstrap", "100"),
)  # fmt: skip


def picture(number: int) -> NDArray[np.uint8]:
    """A pale slide (256, 320, 3) with one grainy ellipse of tissue; every other slide's is redder."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = ((x - 150) / 95) ** 2 + ((y - 125) / 85) ** 2 < 1
    colour = np.array([215, 130, 160] if number % 2 else [150, 95, 175])
    tissue = colour + rng.normal(0, 20, (HEIGHT, WIDTH, 1)) + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
    return np.where(inside[..., None], np.clip(tissue, 0, 255), 243).astype(np.uint8)


def write_slides(folder: Path, count: int = 4) -> Path:
    """Write slides g0, g1, ... and their slides.csv; returns the CSV."""
    rows = [("slide_id", "path", "patient_id", "label", "mpp")]
    for number in range(count):
        write_generic_tiff(folder / f"g{number}.tif", picture(number), mpp=MPP, tile=128)
        rows.append((f"g{number}", f"g{number}.tif", f"p{number}", ("blue", "red")[number % 2], ""))
    with (folder / "slides.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "slides.csv"


def build(target: Path) -> None:
    """Fill `target` with the stores of slide g0 in both formats (Zarr folders zipped), its status, and a model."""
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        slides = write_slides(work)
        for kind in SUFFIXES:
            for pixels in PIXELS:
                # Only the run that trains a model needs all slides.
                only = () if (kind, pixels) == ("hdf5", "none") else ("--only", "g0")
                common = ("--run", str(work / f"{kind}-{pixels}"), "--store", kind, *only)
                _command("tile", str(slides), "--workers", "0", "--pixels", pixels, *_flat(TILE_OPTIONS), *common)
                if pixels == "none":
                    _command("embed", "--model", "colour", *common)
                _keep(work / f"{kind}-{pixels}" / "tile", target / f"patches-{pixels}", kind)
            run = work / f"{kind}-none"
            _keep(run / "segment", target / "segment", kind)
            _keep(run / "embed" / "colour", target / "features", kind)
        run = work / "hdf5-none"
        _command("train-mil", "--run", str(run), *_flat(MIL_OPTIONS))
        shutil.copytree(run / "train-mil" / "colour" / "gated-abmil", target / "model")
        shutil.copy(run / "status" / "g0.json", target / "status.json")


def _command(*words: str) -> None:
    if wsi_pipeline(list(words)) != 0:
        raise SystemExit(f"wsi-pipeline {' '.join(words)} failed")


def _flat(options: tuple[tuple[str, str], ...]) -> list[str]:
    return [word for pair in options for word in pair]


def _keep(folder: Path, target: Path, kind: str) -> None:
    """Copy g0's store out of a run folder."""
    store = folder / f"g0{SUFFIXES[kind]}"
    if store.is_dir():
        shutil.make_archive(f"{target}.zarr", "zip", store)
    else:
        shutil.copy(store, f"{target}.h5")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
