"""Kill every stage at random instants, begin it again, and compare with a run that nobody disturbed.

    python -m benchmarks.torture.kills --kills 50

Every kill is SIGKILL to the whole process group, worker processes included, at an instant between the command's first
and the end it would have had. A command that ends before its kill is begun again with its output removed, so that every
kill meets work. In the end every result file must be byte for byte that of the undisturbed run; only seconds and the
report's list of commands may differ.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.torture import commands
from benchmarks.torture.cohort import write_cohort, write_patches
from benchmarks.torture.compare import differences

ROUNDS_PER_KILL = 4


@dataclass(frozen=True)
class Killed:
    """How often a step was killed, and how long it takes undisturbed."""

    step: str
    kills: int
    seconds: float


def undisturbed(steps: tuple[commands.Step, ...], run: Path, log: Path) -> dict[str, float]:
    """Run all steps; returns step -> its seconds."""
    return {step.name: commands.run(step.words(run), log) for step in steps}


def killed(step: commands.Step, run: Path, seconds: float, kills: int, rng: random.Random, log: Path) -> int:
    """Kill one step `kills` times, then let it end; returns how often a kill met it at work."""
    hits = 0
    for _ in range(ROUNDS_PER_KILL * kills):
        if hits == kills:
            break
        pid = commands.begin(step.words(run), log)
        if commands.wait(pid, rng.uniform(0.02, 1.0) * seconds) is None:
            commands.kill(pid)
            hits += 1
        else:
            commands.clear(run, step.made)
    commands.run(step.words(run), log)
    return hits


def torture(
    folder: Path, kills: int, seed: int, only: tuple[str, ...] = (), slides: int = 6, encoder: str = "pathotune"
) -> tuple[list[Killed], list[str]]:
    """Kill each step `kills` times, or those named in `only`; returns what was done and what differs."""
    steps = commands.steps(write_cohort(folder / "cohort", slides), write_patches(folder / "patches"), encoder)
    if only:
        steps = steps[: 1 + max(number for number, step in enumerate(steps) if step.name in only)]
    commands.load((step.name for step in steps), encoder)
    calm, rough, log = folder / "calm", folder / "rough", folder / "log.txt"
    seconds, done, rng = undisturbed(steps, calm, log), [], random.Random(seed)
    for step in steps:
        if only and step.name not in only:
            commands.run(step.words(rough), log)
            continue
        hits = killed(step, rough, seconds[step.name], kills, rng, log)
        done.append(Killed(step.name, hits, seconds[step.name]))
    return done, differences(calm, rough)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slides", type=int, default=6)
    parser.add_argument("--encoder", default="pathotune", help="with another one neither tune nor classify is run")
    parser.add_argument("--only", default="", help="stages, separated by commas (default: all)")
    args = parser.parse_args()
    started = time.monotonic()
    only = tuple(name for name in args.only.split(",") if name)
    with tempfile.TemporaryDirectory() as folder:
        done, found = torture(Path(folder), args.kills, args.seed, only, args.slides, args.encoder)
    for item in done:
        print(f"{item.step:<10} {item.seconds:6.1f} s undisturbed, killed {item.kills} times")
    print(f"{len(found)} files differ or are left over; {time.monotonic() - started:.0f} s")
    for name in found:
        print(f"  {name}")
    return 1 if found or any(item.kills < args.kills for item in done) else 0


if __name__ == "__main__":
    sys.exit(main())
