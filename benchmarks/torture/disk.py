"""Disks that are full after any number of bytes: a clear error, the old store as it was, no crash, nothing left over.

    python -m benchmarks.torture.disk --cases 400

A limit on the size of files (RLIMIT_FSIZE) stands for the full disk, for it needs no mount and cuts at any byte; the
tests use a small tmpfs besides. Each case writes a store over an older one under a random limit.
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.torture.damage import content, make

SUFFIXES = (".h5", ".zarr")
_LIMITS = {".h5": 200_000, ".zarr": 60_000}
"""A little more than the largest file of a store, so that some writes succeed."""


def _cases(sender: Connection, folder: Path, suffix: str, seeds: range) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = make(folder / f"a{suffix}", rows=200)
    before, handles = content(path), len(list(Path("/proc/self/fd").iterdir()))
    for seed in seeds:
        limit = random.Random(seed).randrange(_LIMITS[suffix])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            make(path, rows=300)
            told = "written"
        except OSError as error:
            told = "refused" if error.errno == errno.EFBIG else f"other: {error}"
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            told = f"other: {type(error).__name__}: {str(error)[:80]}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if told == "written":
            make(path, rows=200)
        sender.send(told if _sound(path, before, handles) else f"unsound after: {told}")


def _sound(path: Path, before: object, handles: int) -> bool:
    """The old store is there as it was, nothing is beside it, no file is left open."""
    return (
        content(path) == before
        and [entry.name for entry in path.parent.iterdir()] == [path.name]
        and len(list(Path("/proc/self/fd").iterdir())) <= handles + 1
    )


def torture(folder: Path, suffix: str, cases: int, seed: int) -> Counter[str]:
    """So many limits on a store with that suffix; returns outcome -> how often."""
    context, tally = multiprocessing.get_context("spawn"), Counter[str]()
    receiver, sender = context.Pipe(duplex=False)
    writer = context.Process(target=_cases, args=(sender, folder, suffix, range(seed, seed + cases)))
    writer.start()
    sender.close()
    try:
        for _ in range(cases):
            tally[receiver.recv()] += 1
    except EOFError:
        tally["crash"] += 1
    writer.join()
    return tally


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=400, help="for HDF5; a fourth of it for Zarr, which is slower")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if os.name != "posix":
        print("left out: needs limits on the size of files")
        return 0
    bad = 0
    for suffix in SUFFIXES:
        started, cases = time.monotonic(), args.cases if suffix == ".h5" else args.cases // 4
        with tempfile.TemporaryDirectory() as folder:
            tally = torture(Path(folder), suffix, cases, args.seed)
        bad += sum(count for name, count in tally.items() if name not in ("refused", "written"))
        told = ", ".join(f"{name} {count}" for name, count in tally.most_common())
        print(f"{suffix:<6}{cases} limits: {told}; {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
