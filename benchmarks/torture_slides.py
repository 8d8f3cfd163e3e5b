"""Spoilt slides by the thousand through the stages, each in a process of its own with limits of time and memory.

    python -m benchmarks.torture_slides                   every kind of damage on every sound file, some 1,600 cases
    python -m benchmarks.torture_slides --seeds 3         fewer

Prints a table: kind of damage, cases, and how many were done or refused with a named reason. A sound slide after every
twenty spoilt ones must be done each time. Exit code 1 where a case hung (over 300 s), crashed, went over its memory,
ended in an unexpected error, or a sound slide was not done. Real slides are taken from the folder that
WSI_PIPELINE_DATA names, where it is there.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.slide_bases import real_bases, synthetic_bases
from tests.hostile.slide_cases import PLACES, Case, cases
from tests.hostile.trial import ALLOWED, LIMITS, OUTCOMES, Outcome, attempt_all

SOUND_EVERY = 20
DATA = Path(os.environ.get("WSI_PIPELINE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def corpus(folder: Path, seeds: int, real_seeds: int) -> list[Case]:
    """All cases, shuffled, with a sound slide after every twenty: `seeds` of each kind, truncation at all places."""
    synthetic, real = list(synthetic_bases(folder).values()), list(real_bases(DATA).values())
    spoilt = [case for case in cases(synthetic, seeds) if case.kind != "truncated"]
    spoilt += [case for case in cases(real, real_seeds) if case.kind != "truncated"]
    spoilt += [Case("truncated", base, place) for base in synthetic for place in range(PLACES)]
    spoilt += [
        Case("truncated", base, place) for base in real for place in range(0, PLACES, PLACES // (2 * real_seeds))
    ]
    random.Random(0).shuffle(spoilt)
    return list(_with_sound(spoilt, [Case("sound", base, 0) for base in synthetic]))


def _with_sound(spoilt: list[Case], sound: list[Case]) -> Iterator[Case]:
    for number, case in enumerate(spoilt):
        if number % SOUND_EVERY == 0:
            yield sound[number // SOUND_EVERY % len(sound)]
        yield case


def table(found: list[tuple[Case, Outcome]]) -> str:
    """Kinds against outcomes, in Markdown."""
    counts = Counter((case.kind, outcome.outcome) for case, outcome in found)
    kinds = sorted({case.kind for case, _ in found}, key=lambda kind: (kind == "sound", kind))
    lines = ["| damage | cases | " + " | ".join(OUTCOMES) + " |", "|---|--:|" + "--:|" * len(OUTCOMES)]
    for kind in kinds:
        row = [counts[kind, outcome] for outcome in OUTCOMES]
        lines.append(f"| {kind} | {sum(row)} | " + " | ".join(map(str, row)) + " |")
    total = [sum(counts[kind, outcome] for kind in kinds) for outcome in OUTCOMES]
    return "\n".join([*lines, f"| all | {sum(total)} | " + " | ".join(map(str, total)) + " |"])


def faults(found: list[tuple[Case, Outcome]]) -> list[str]:
    """What must not be."""
    odd = [f"{case.name}: {got.outcome}, {got.reason}" for case, got in found if got.outcome not in ALLOWED]
    return odd + [f"{case.name}: not done" for case, got in found if case.kind == "sound" and got.outcome != "done"]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=17, help="cases of each kind on each synthetic slide")
    parser.add_argument("--real-seeds", type=int, default=3, help="cases of each kind on each real slide")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    started, found = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        wanted = corpus(Path(folder), args.seeds, args.real_seeds)
        for number, result in enumerate(attempt_all(wanted, Path(folder), args.workers), start=1):
            found.append(result)
            if number % 200 == 0:
                print(f"{number}/{len(wanted)}  {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(table(found))
    memory = (LIMITS.memory or 0) >> 30
    print(f"\n{len(found)} cases, {time.monotonic() - started:.0f} s; limits {LIMITS.seconds:g} s, {memory} GiB each")
    for case, outcome in found:
        if outcome.outcome == "crashed":
            print(f"crashed by itself: {case.name}: {outcome.reason}")
    odd = faults(found)
    for line in odd:
        print(f"FAULT {line}")
    return 1 if odd else 0


if __name__ == "__main__":
    sys.exit(main())
