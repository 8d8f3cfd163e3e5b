"""What should feel quick, in seconds. Tests count the same work instead, since they must pass on a busy machine.

    python benchmarks/quick.py [--rows 50000]

Wall-clock seconds, the best of three.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.stages.cohorts import write_cohort  # noqa: E402
from tests.statistics.test_metrics import measured, predictions  # noqa: E402 - found by the line above
from wsi_pipeline.cli import main as command  # noqa: E402
from wsi_pipeline.cohort.manifest import read_cohort, to_csv  # noqa: E402
from wsi_pipeline.geometry import Size  # noqa: E402
from wsi_pipeline.labelled.splits.patch_split import split_patches  # noqa: E402
from wsi_pipeline.report.maps.heatmaps import Heat, draw_heat  # noqa: E402
from wsi_pipeline.report.maps.overlays import draw_overlay  # noqa: E402

PATCHES, RESAMPLES, SLIDES, REPEATS = 100_000, 1000, 100, 3


def _manifest(folder: Path, rows: int) -> Callable[[], object]:
    lines = (f"s{k},slides/s{k}.svs,p{k // 2},{'ab'[k // 2 % 2]}" for k in range(rows))
    path = folder / "long.csv"
    path.write_text("slide_id,path,patient_id,label\n" + "\n".join(lines))
    return lambda: to_csv(read_cohort([path]))


def _check(folder: Path) -> Callable[[], object]:
    content = (write_cohort(folder, broken=False).parent / "s0.svs").read_bytes()
    many = folder / "many"
    many.mkdir()
    for k in range(SLIDES):  # bytes after the last directory leave the slide as it is, but make it another file
        (many / f"t{k:03}.svs").write_bytes(content + k.to_bytes(2, "little"))
    return lambda: command(["check", str(many), "--run", str(folder / "none")])


def _split() -> Callable[[], object]:
    labels, groups = np.random.default_rng(0).integers(0, 5, PATCHES), [str(k) for k in range(PATCHES)]
    return lambda: split_patches(labels, groups, None, val_fraction=0.1, test_fraction=0.2, seed=0)


def _heat() -> Callable[[], object]:
    rng, thumbnail = np.random.default_rng(1), np.full((1000, 1000, 3), 230, np.uint8)
    coords, values = rng.integers(0, 90_000, (PATCHES, 2)), rng.random(PATCHES)
    return lambda: draw_heat(thumbnail, Size(100_000, 100_000), Heat.of_attention(coords, 512, values))


def _overlay() -> Callable[[], object]:
    coords = np.stack(np.meshgrid(np.arange(400), np.arange(PATCHES // 400)), axis=-1).reshape(-1, 2) * 256
    thumbnail = np.full((1000, 1600, 3), 230, np.uint8)
    return lambda: draw_overlay(thumbnail, Size(102_400, 64_000), [], coords, 256)


def _help() -> object:
    return subprocess.run([sys.executable, "-m", "wsi_pipeline", "--help"], capture_output=True, check=True, cwd=ROOT)


def _seconds(function: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            function()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="of the long manifest")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = predictions(300, classes=3)
        work: dict[str, Callable[[], object]] = {
            "wsi-pipeline --help": _help,
            f"reading and writing a manifest of {args.rows:,} rows": _manifest(Path(folder), args.rows),
            f"check of {SLIDES} small slides": _check(Path(folder)),
            f"split of {PATCHES:,} patches, each its own group": _split(),
            f"{RESAMPLES:,} resamples of 300 slides, 3 classes": lambda: measured(table, 3, resamples=RESAMPLES),
            f"overlay of {PATCHES:,} patches": _overlay(),
            f"heatmap of {PATCHES:,} patches": _heat(),
        }
        print("| what | seconds |\n|---|--:|", flush=True)
        for name, function in work.items():
            print(f"| {name} | {_seconds(function):.2f} |", flush=True)


if __name__ == "__main__":
    main()
