"""Many small slides through all stages: does the main process grow, leak open files, or slow down?

    python -m benchmarks.torture.long_run --slides 1000

Each command is a process of its own, looked at several times a second: resident memory, open files, slides done.
Memory and files are compared between the first quarter of the slides and the last, the time of a slide between the
second quarter (the first pays for loading) and the last.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.torture.cohort import write_cohort, write_patches
from benchmarks.torture.commands import ACCEPTED, Step, steps

LOOK_SECONDS = 0.2
MOST_BYTES_A_SLIDE = 64 << 10
MOST_FILES = 4
MOST_SLOWER = 1.5
FEWEST_COMPARED = 8
"""Slides below which nothing is compared: too short."""
FEWEST_TIMED = 200
"""Slides below which times are shown and not compared: other work on the machine changes them more than a leak."""
OUTPUTS: dict[str, str] = {
    "tile": "tile/*.h5",
    "embed": "embed/*/*.h5",
    "classify": "classify/*/*.h5",
    "heatmap": "heatmap/*/*/*.tif",
}
"""What a step makes one of for every slide."""


@dataclass(frozen=True)
class Look:
    """The state of a command at one moment; `computed` is its processor time, which other work does not change."""

    seconds: float
    computed: float
    slides: int
    memory: int
    files: int


@dataclass(frozen=True)
class Watched:
    """A command from begin to end; `looks` while it worked on slides."""

    step: str
    seconds: float
    peak: int
    looks: tuple[Look, ...]

    def quarter(self, number: int, of: Callable[[Look], float]) -> float:
        """The median of something over a quarter of the slides, 0 to 3."""
        most = max(look.slides for look in self.looks)
        part = sorted(of(look) for look in self.looks if number * most <= 4 * look.slides <= (number + 1) * most)
        return part[len(part) // 2] if part else float("nan")

    def rate(self, number: int, of: Callable[[Look], float] = lambda look: look.seconds) -> float:
        """Seconds per slide in a quarter of the slides, on the clock or of the processor."""
        most = max(look.slides for look in self.looks)
        part = [look for look in self.looks if number * most <= 4 * look.slides <= (number + 1) * most]
        slides = part[-1].slides - part[0].slides if part else 0
        return (of(part[-1]) - of(part[0])) / slides if slides else float("nan")


def watched(step: Step, run: Path, log: Path) -> Watched:
    """Run a step and look at it. Raises RuntimeError where it does not end well."""
    words = [sys.executable, "-m", "wsi_pipeline", *step.words(run)]
    started, looks, peak = time.monotonic(), [], 0
    with log.open("a") as out:
        process = psutil.Popen(words, stdout=out, stderr=out)
        while process.poll() is None:
            try:
                memory, files = process.memory_info().rss, process.num_fds()
                computed = sum(process.cpu_times()[:2])
            except psutil.Error:
                break
            done = len(list(run.glob(OUTPUTS[step.name]))) if step.name in OUTPUTS else 0
            peak = max(peak, memory)
            if done:
                looks.append(Look(time.monotonic() - started, computed, done, memory, files))
            time.sleep(LOOK_SECONDS)
    if process.wait() not in ACCEPTED:
        raise RuntimeError(f"{step.name} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return Watched(step.name, time.monotonic() - started, peak, tuple(looks))


def _clock(look: Look) -> float:
    return look.seconds


def _processor(look: Look) -> float:
    """Of the main process; what the load of the machine changes least."""
    return look.computed


def faults(item: Watched, slides: int) -> list[str]:
    """What is not flat about a step that goes slide by slide."""
    if not item.looks or max(look.slides for look in item.looks) < FEWEST_COMPARED:
        return []
    found = []
    grown = item.quarter(3, lambda look: look.memory) - item.quarter(0, lambda look: look.memory)
    if grown > max(16 << 20, MOST_BYTES_A_SLIDE * slides):
        found.append(f"{item.step}: {grown / 2**20:.0f} MiB more memory in the last quarter than in the first")
    opened = item.quarter(3, lambda look: look.files) - item.quarter(0, lambda look: look.files)
    if opened > MOST_FILES:
        found.append(f"{item.step}: {opened:.0f} more open files in the last quarter than in the first")
    if slides >= FEWEST_TIMED and all(item.rate(3, of) > MOST_SLOWER * item.rate(1, of) for of in (_clock, _processor)):
        found.append(
            f"{item.step}: {item.rate(3):.3f} s a slide in the last quarter, {item.rate(1):.3f} s in the second"
        )
    return found


def torture(folder: Path, slides: int, side: int, only: Sequence[str] = ()) -> Iterator[Watched]:
    """All steps (or those named) on so many slides, one after the other."""
    csv = write_cohort(folder / "cohort", slides, side, distinct=min(slides - slides % 2, 40))
    for step in steps(csv, write_patches(folder / "patches")):
        if not only or step.name in only:
            yield watched(step, folder / "run", folder / "log.txt")


def row(item: Watched) -> str:
    """A line of the table."""
    head = f"{item.step:<10} {item.seconds:8.1f}"
    if not item.looks or max(look.slides for look in item.looks) < FEWEST_COMPARED:
        return f"{head} {'':>30} {'peak ' + format(item.peak / 2**20, '.0f'):>22}"
    memory = [item.quarter(number, lambda look: look.memory) / 2**20 for number in (0, 3)]
    files = [item.quarter(number, lambda look: look.files) for number in (0, 3)]
    times = f"{item.rate(1):.3f}, {item.rate(3):.3f}"
    sizes = f"{memory[0]:.0f}, {memory[1]:.0f}, {item.peak / 2**20:.0f}"
    return f"{head} {times:>30} {sizes:>22} {f'{files[0]:.0f}, {files[1]:.0f}':>9}"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument(
        "--side", type=int, default=384, help="level-0 pixels; far smaller ones have too little tissue to count"
    )
    parser.add_argument("--only", default="", help="stages, separated by commas (default: all)")
    args = parser.parse_args()
    only = [name for name in args.only.split(",") if name]
    print(f"{args.slides} slides of {args.side} x {args.side} px; memory and open files are the main process's")
    heads = f"{'s a slide: 2nd, last quarter':>30} {'MiB: 1st, last, peak':>22} {'files':>9}"
    print(f"{'stage':<10} {'seconds':>8} {heads}", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for item in torture(Path(folder), args.slides, args.side, only):
            print(row(item), flush=True)
            found += faults(item, args.slides)
    for line in found:
        print(f"not flat: {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
