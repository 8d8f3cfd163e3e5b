"""A benchmark of this checkout and of another one in turn: what a build measured then, and what it measures today.

    git worktree add --detach ../then 1d779fa
    python benchmarks/beside.py ../then reading.py --patches 96
    python benchmarks/beside.py ../then --rounds 2 tuning_speed.py

Each checkout runs its own script with its own code, in this Python's environment. Many benchmarks compare the product
with another library or with a plain loop: their ratios, measured minutes apart on one machine, are what to compare.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Command line; exit code 1 if a script failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("script", help="its name in benchmarks/")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="passed on")
    args = parser.parse_args()
    failed = False
    for _ in range(args.rounds):
        for checkout in (args.checkout.resolve(), ROOT):
            print(f"== {checkout.name}", flush=True)
            words = [sys.executable, str(checkout / "benchmarks" / args.script), *args.words]
            environment = {**os.environ, "PYTHONPATH": str(checkout)}
            # Worker processes find modules in the working folder first.
            failed |= subprocess.run(words, env=environment, cwd=checkout, check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
