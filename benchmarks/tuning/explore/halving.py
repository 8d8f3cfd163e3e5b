"""Successive halving over design seeds, validation images only; resumable, one line of JSON per training.

    python -m benchmarks.tuning.explore.halving --results FILE --seeds 100,102 --epochs 3      every candidate
    python -m benchmarks.tuning.explore.halving --results FILE --seeds 100,101,102,103 --epochs 5 --keep 8
    python -m benchmarks.tuning.explore.halving --results FILE --show

`--keep N` runs only the N best of the shorter rung. Candidates are read again from candidates.json after each training,
so that new ones can be added while it runs. Several processes may share a results file if their seeds differ.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsi_pipeline.system.machine import prepare_process

CANDIDATES = Path(__file__).with_name("candidates.json")
COLUMNS = ("val_auroc", "val_loss", "loss", "share", "cpu_per_epoch")
HEAD = "| candidate | macro F1 over the first | seeds | AUROC | loss | train loss | share | seconds an epoch |"
Row = dict[str, Any]


def rows_of(path: Path) -> list[Row]:
    """Results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def ranking(rows: list[Row], epochs: int) -> list[tuple[str, float, float, int, Row]]:
    """(name, mean gain over the first candidate, its half-width, seeds, last row), best first."""
    kept = {(row["name"], row["seed"]): row for row in rows if row["epochs"] == epochs}
    names = list(dict.fromkeys(name for name, _ in kept))
    base = next(iter(json.loads(CANDIDATES.read_text())))
    found = []
    for name in names:
        seeds = [seed for one, seed in kept if one == name and (base, seed) in kept]
        gaps = [100 * (kept[name, seed]["val_f1"] - kept[base, seed]["val_f1"]) for seed in seeds]
        if gaps:
            half = float(np.std(gaps, ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
            found.append((name, float(np.mean(gaps)), half, len(gaps), kept[name, seeds[-1]]))
    return sorted(found, key=lambda row: -row[1])


def show(rows: list[Row]) -> None:
    """Print a table for each rung: gain over the first candidate in macro F1, with its standard error."""
    for epochs in sorted({row["epochs"] for row in rows}):
        print(f"\n{epochs} epochs\n\n{HEAD}")
        print("|---|---|---|---|---|---|---|---|")
        for name, gain, half, count, _ in ranking(rows, epochs):
            own = [row for row in rows if row["name"] == name and row["epochs"] == epochs]
            mean = {key: np.mean([row[key] for row in own]) for key in COLUMNS}
            rolled = [100 * (row["val_f1"] - row["rolled"]["val_f1"]) for row in own if "rolled" in row]
            print(
                f"| {name} | {gain:+.1f} ± {half:.1f} | {count} | {mean['val_auroc']:.4f} | {mean['val_loss']:.3f} | "
                f"{mean['loss']:.3f} | {mean['share']:.1%} | {mean['cpu_per_epoch']:.1f} |"
                + (f" another's IVP {-np.mean(rolled):+.1f}" if rolled else "")
            )


def main() -> None:
    """Run what is missing, or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", default="100,102")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--keep", type=int, default=0)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    if given.show:
        show(rows_of(given.results))
        return
    prepare_process()
    torch.set_num_threads(1)
    from benchmarks.tuning.explore.candidate import Spec
    from benchmarks.tuning.explore.train import Data, train

    for seed in map(int, given.seeds.split(",")):
        data = Data("crc", seed, (2000, 1500, 10))
        while True:
            rows = rows_of(given.results)
            done = {(row["name"], row["seed"], row["epochs"]) for row in rows}
            wanted = json.loads(CANDIDATES.read_text())
            if given.keep:
                shorter = [row["epochs"] for row in rows if row["epochs"] < given.epochs]
                best = [row[0] for row in ranking(rows, max(shorter))][: given.keep] if shorter else list(wanted)
                wanted = {name: wanted[name] for name in best if name in wanted}
            name = next((one for one in wanted if (one, seed, given.epochs) not in done), None)
            if name is None:
                break
            started = time.process_time()
            found = train(Spec(**{**wanted[name], "epochs": given.epochs}), data)
            last = found.pop("history")[-1]
            row = {"name": name, "seed": seed, "epochs": given.epochs, **last, **found, "spec": wanted[name]}
            row |= {"epochs": given.epochs, "cpu": time.process_time() - started}
            with given.results.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
