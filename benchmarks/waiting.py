"""What people wait for while they look at results: commands with nothing to do, heatmaps, the report.

    python benchmarks/waiting.py [--run RUN] [--beside CHECKOUT] [--rounds 3] [--models 3] [--slides TABLE] [--own-runs]

Processor seconds of the command and of all processes it starts, the least of the rounds; also wall-clock seconds. With
`--beside`, a command of another checkout (`git worktree add`) runs in turn with ours. Each command works on a copy of a
run with features and a model; without `--run` one is made of synthetic slides, or of those of a table, which takes a
few minutes. `--models` trains up to three models, so that the report shows as many heatmaps of each slide. With
`--own-runs` each checkout makes its own run of the same slides: for builds that cannot continue each other's.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PR_SET_CHILD_SUBREAPER = 36
MODELS = ("gated-abmil", "mean", "max")


def _nothing(run: Path) -> None:
    pass


def _without_heatmaps(run: Path) -> None:
    shutil.rmtree(run / "heatmap", ignore_errors=True)


@dataclass(frozen=True)
class Wait:
    """A command, and what is done to the copy of the run beforehand."""

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Path], None] = _nothing


COMPARE = Wait("`compare`", ("compare", *(f"run/train-mil/colour/{name}" for name in MODELS[:2])))
WAITS = (
    Wait("`status`", ("status",)),
    COMPARE,
    Wait("`tile`, nothing to do", ("tile",)),
    Wait("`embed`, nothing to do", ("embed", "--model", "colour")),
    Wait("`heatmap`, nothing to do", ("heatmap",)),
    Wait("`heatmap` of all slides", ("heatmap",), _without_heatmaps),
    Wait("`report`", ("report",)),
)

COARSE = ("--mpp", "2", "--default-mpp", "0.5")
"""Real slides of any resolution can be tiled so."""


def seconds(checkout: Path, words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Processor and wall-clock seconds of a command of a checkout in a folder, with all processes that it starts."""
    code = "import sys; from wsi_pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    before, started = _of_children(), time.perf_counter()
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode not in (0, 3):  # 3: some slides failed, as a damaged one of the demo does
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    _wait_for_orphans()
    return _of_children() - before, wall


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def adopt_orphans() -> None:
    """Become the parent of processes whose parent has ended, so that the server of workers is counted."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("needs Linux")


def _wait_for_orphans() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def make_run(run: Path, models: int, tile: Sequence[str], checkout: Path = ROOT) -> Path:
    """A run that a checkout tiled with these words, embedded and trained."""
    run.parent.mkdir(parents=True, exist_ok=True)
    train = [("train-mil", "--allow-few", "--epochs", "3", "--model", name) for name in MODELS[:models]]
    for words in (tuple(tile), ("embed", "--model", "colour"), *train, ("heatmap",)):
        # Not in this process, whose children would include the server of workers, which does not end before it does.
        seconds(checkout, (*words, "--run", str(run)), run.parent)
    return run


def tiling(folder: Path, table: Path | None) -> tuple[str, ...]:
    """The words that tile the slides of a table, or, without one, synthetic slides that are made here."""
    from wsi_pipeline.demo.demo_cohort import make_cohort

    return ("tile", str(table.resolve()), *COARSE) if table else ("tile", str(make_cohort(folder, workers=1)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run to copy, with features of colour, a model and heatmaps")
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=int, default=1, help="how many are trained, 1 to 3")
    parser.add_argument("--slides", type=Path, help="a table of slides with labels, instead of synthetic ones")
    parser.add_argument("--own-runs", action="store_true", help="each checkout makes its own run")
    parser.add_argument("--only", nargs="*", default=[], help="numbers of the rows, from 0")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    adopt_orphans()
    checkouts = [args.beside.resolve(), ROOT] if args.beside else [ROOT]
    with tempfile.TemporaryDirectory() as name:
        tile = () if args.run else tiling(Path(name) / "cohort", args.slides)
        folders = [Path(name) / str(number) / "run" for number in range(len(checkouts))]
        if args.own_runs:
            copies = [make_run(run, args.models, tile, one) for run, one in zip(folders, checkouts, strict=True)]
        else:
            made = args.run or make_run(Path(name) / "made" / "run", args.models, tile)
            copies = [shutil.copytree(made, run) for run in folders]
        print("| what | " + " | ".join(f"{c.name}: processor s | wall s" for c in checkouts) + " | times |")
        print("|---|" + "--:|--:|" * len(checkouts) + "--:|", flush=True)
        for number, wait in enumerate(WAITS):
            if (args.only and str(number) not in args.only) or (wait is COMPARE and args.models < 2):
                continue
            best = [(float("inf"), float("inf"))] * len(checkouts)
            for _ in range(args.rounds):
                for place, (checkout, copy) in enumerate(zip(checkouts, copies, strict=True)):
                    wait.prepare(copy)
                    best[place] = min(best[place], seconds(checkout, (*wait.words, "--run", str(copy)), copy.parent))
            cells = " | ".join(f"{used:.2f} | {wall:.1f}" for used, wall in best)
            print(f"| {wait.name} | {cells} | {best[0][0] / best[-1][0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
