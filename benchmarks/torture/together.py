"""Several processes on one run folder: they share the slides, and killing and restarting them changes no result.

    python -m benchmarks.torture.together --processes 4 --kills 60

First undisturbed, where each slide must be made once in each stage, by whichever process; then again from nothing with
processes killed (SIGKILL, all their own with them) at random instants and started again. Both results must be those of
one process alone.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.torture import commands
from benchmarks.torture.cohort import write_cohort, write_patches
from benchmarks.torture.compare import differences

SHARED = "tile,embed,train-mil"
LONGEST_SECONDS = 900.0
_MADE = re.compile(r" (s\d+): (\S+) made, ")


@dataclass
class Member:
    """One of the processes: which step it is at, and its process number; 0 when it has none at work."""

    steps: tuple[commands.Step, ...]
    at: int = 0
    pid: int = 0

    @property
    def done(self) -> bool:
        """Whether it has been through all steps."""
        return self.at == len(self.steps)

    def look(self, run: Path, log: Path) -> None:
        """Start what is next. Raises RuntimeError where a command ended badly by itself."""
        if self.pid:
            code = commands.wait(self.pid, 0.0)
            if code is None:
                return
            if code not in commands.ACCEPTED:
                raise RuntimeError(f"{self.steps[self.at].name} ended with {code}:\n{log.read_text()[-3000:]}")
            self.pid, self.at = 0, self.at + 1
        if not self.done:
            self.pid = commands.begin(self.steps[self.at].words(run), log)


def work(
    steps: Sequence[commands.Step], run: Path, log: Path, processes: int, kills: int, pause: float, rng: random.Random
) -> int:
    """Let `processes` go through `steps`, killing one of them every `pause` seconds or so; returns how often."""
    members, hits = [Member(tuple(steps)) for _ in range(processes)], 0
    due, end = time.monotonic() + pause, time.monotonic() + LONGEST_SECONDS
    try:
        while not all(member.done for member in members):
            for member in members:
                member.look(run, log)
            busy = [member for member in members if member.pid]
            if hits < kills and busy and time.monotonic() >= due:
                victim = rng.choice(busy)
                commands.kill(victim.pid)
                victim.pid, hits = 0, hits + 1
                due = time.monotonic() + rng.uniform(0.2, 1.8) * pause
            if time.monotonic() > end:
                raise RuntimeError(f"not done after {LONGEST_SECONDS:.0f} s:\n{log.read_text()[-3000:]}")
            time.sleep(0.01)
    finally:
        for member in members:
            if member.pid:
                commands.kill(member.pid)
    return hits


def made_twice(run: Path) -> dict[str, int]:
    """Slides and stages that the log says were made more than once."""
    text = (run / "logs" / "run.log").read_text(encoding="utf-8")
    counts = Counter(f"{slide}: {stage}" for slide, stage in _MADE.findall(text))
    return {name: count for name, count in counts.items() if count > 1}


@dataclass(frozen=True)
class Outcome:
    """What came of it; all lists should be empty."""

    kills: int
    twice: dict[str, int]
    calm: list[str]
    rough: list[str]


def torture(
    folder: Path, *, processes: int, kills: int, slides: int, seed: int, pause: float, encoder: str, steps: str
) -> Outcome:
    """One process alone, then several undisturbed, then several killed at random."""
    csv = write_cohort(folder / "cohort", slides, distinct=min(slides, 6))
    every = commands.steps(csv, write_patches(folder / "patches"), encoder)
    log, rng = folder / "log.txt", random.Random(seed)
    before = [step for step in every if step.name == "tune"]
    shared = [step for step in every if step.name in steps.split(",")]
    commands.load((step.name for step in (*before, *shared)), encoder)
    runs = [folder / name for name in ("alone", "calm", "rough")]
    for run in runs:
        for step in (*before, *(shared if run is runs[0] else ())):
            commands.run(step.words(run), log)
    work(shared, runs[1], log, processes, 0, 1.0, rng)
    hits, stages = 0, [stage for step in shared for stage in step.made]
    while hits < kills:  # from nothing again, until there were enough
        hits += work(shared, runs[2], log, processes, kills - hits, pause, rng)
        if hits < kills:
            commands.clear(runs[2], stages)
    return Outcome(
        hits, made_twice(runs[1]), differences(runs[0], runs[1], stages), differences(runs[0], runs[2], stages)
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--slides", type=int, default=16)
    parser.add_argument("--encoder", default="pathotune")
    parser.add_argument("--steps", default=SHARED, help="commands, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between kills, on average")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = torture(Path(folder), **vars(args))
    print(f"{args.processes} processes, {args.slides} slides, {found.kills} kills; {time.monotonic() - started:.0f} s")
    print(f"undisturbed: {len(found.twice)} made twice, {len(found.calm)} files differ from one process alone")
    print(f"killed and restarted: {len(found.rough)} files differ or are left over")
    for line in (*found.twice, *found.calm, *found.rough):
        print(f"  {line}")
    return 1 if found.twice or found.calm or found.rough else 0


if __name__ == "__main__":
    sys.exit(main())
