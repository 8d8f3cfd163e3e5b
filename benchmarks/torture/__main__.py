"""All parts one after the other, in under an hour on two cores; --quick takes a few minutes."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

PARTS = {
    "kills": (["--kills", "50"], ["--kills", "3"]),
    "together": (["--kills", "60", "--slides", "16"], ["--kills", "6", "--slides", "6"]),
    "damage": (["--cases", "5000"], ["--cases", "200"]),
    "disk": (["--cases", "600"], ["--cases", "40"]),
    "long_run": (["--slides", "1000"], ["--slides", "40"]),
}
"""Part -> its words, and those of a quick run."""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="parts, separated by commas (default: all)")
    args = parser.parse_args()
    codes = {}
    for name, words in PARTS.items():
        if args.only and name not in args.only.split(","):
            continue
        print(f"\n== {name}", flush=True)
        started = time.monotonic()
        program = [sys.executable, "-m", f"benchmarks.torture.{name}", *words[args.quick]]
        codes[name] = subprocess.run(program, check=False).returncode
        print(f"{'sound' if codes[name] == 0 else 'NOT SOUND'}, {time.monotonic() - started:.0f} s")
    return 1 if any(codes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
