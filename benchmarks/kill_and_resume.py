"""Kill the three commands at random instants, resume them, and compare with a run that nobody disturbed.

    python benchmarks/kill_and_resume.py slides.csv --kills 20

Every kill is SIGKILL to the whole process group, worker processes included. Each command is begun again until it
ends by itself. Then every result file (masks, contours, overlays, patch and feature stores, models, predictions,
metrics, heatmaps, report) must be byte for byte that of the undisturbed run; status files may differ in
their times only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MADE_BY = {"tile": ("segment", "tile"), "embed": ("embed",), "train-mil": ("train-mil", "heatmap")}
RESULTS = tuple(stage for stages in MADE_BY.values() for stage in stages)


def steps(csv: Path, run: Path, options: dict[str, list[str]]) -> list[list[str]]:
    """The three commands on `csv`, with extra options for each."""
    program = [sys.executable, "-m", "wsi_pipeline"]
    return [
        [*program, "tile", str(csv), "--run", str(run), *options.get("tile", [])],
        [*program, "embed", "--run", str(run), *options.get("embed", [])],
        [*program, "train-mil", "--run", str(run), *options.get("train-mil", [])],
    ]


def undisturbed(commands: list[list[str]]) -> list[float]:
    """Run each command once; returns their seconds."""
    seconds = []
    for command in commands:
        started = time.monotonic()
        code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if code not in (0, 3):
            raise SystemExit(f"{' '.join(command)} ended with exit code {code}")
        seconds.append(time.monotonic() - started)
    return seconds


def disturbed(commands: list[list[str]], seconds: list[float], kills: int, seed: int) -> int:
    """Run each command, killing it at random instants `kills` times in all; returns how often a kill hit.

    A command that ends before its kill is begun again from nothing, so that every kill meets work.
    """
    rng, hits = random.Random(seed), 0
    share = [max(1, round(kills * part / sum(seconds))) for part in seconds]
    share[0] = max(1, share[0] + kills - sum(share))
    for command, length, count in zip(commands, seconds, share, strict=True):
        target = hits + count
        for _ in range(5 * count):
            if hits == target:
                break
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
            try:
                process.wait(timeout=rng.uniform(0.05, 1.0) * length)
                for stage in MADE_BY[command[3]]:
                    shutil.rmtree(Path(command[command.index("--run") + 1]) / stage, ignore_errors=True)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                hits += 1
        undisturbed([command])
    return hits


def differences(one: Path, other: Path) -> list[str]:
    """Result files that are not the same in both run folders, and left-over temporary files."""
    found = []
    names = {
        str(path.relative_to(run))
        for run in (one, other)
        for stage in RESULTS
        for path in (run / stage).rglob("*")
        if path.is_file()
    }
    for name in sorted(names):
        a, b = one / name, other / name
        if not (a.is_file() and b.is_file() and a.read_bytes() == b.read_bytes()):
            found.append(name)
    for path in sorted((one / "status").glob("*.json")):
        if _timeless(path) != _timeless(other / "status" / path.name):
            found.append(f"status/{path.name}")
    return found


def _timeless(path: Path) -> object:
    document = json.loads(path.read_text())
    for stage in document["stages"].values():
        stage.pop("seconds")
        stage.pop("traceback")
    document.pop("traceback")
    return document


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="colour")
    parser.add_argument("--weights")
    parser.add_argument("--folds", default="5")
    args = parser.parse_args()
    options = {
        "embed": ["--model", args.model, *(["--weights", args.weights] if args.weights else [])],
        "train-mil": ["--folds", args.folds, "--allow-few"],
    }
    with tempfile.TemporaryDirectory() as folder:
        calm, rough = Path(folder) / "calm", Path(folder) / "rough"
        seconds = undisturbed(steps(args.csv, calm, options))
        hits = disturbed(steps(args.csv, rough, options), seconds, args.kills, args.seed)
        found = differences(calm, rough)
    print(f"undisturbed: {', '.join(f'{value:.1f} s' for value in seconds)} (tile, embed, train-mil)")
    print(f"killed {hits} times, resumed; {len(found)} files differ")
    for name in found:
        print(f"  {name}")
    return 1 if found or hits < args.kills // 2 else 0


if __name__ == "__main__":
    sys.exit(main())
