"""Disks that are full after any number of bytes: a clear error, the old store as it was, no crash, nothing left over.

    python -m benchmarks.torture.disk --cases 400

A limit on the size of files (RLIMIT_FSIZE) stands for the full disk, for it needs no mount and cuts at any byte; the
tests use a small tmpfs besides. Each case writes a store over an older one under a random limit.
"""

from __future__ import annotations

import errno
import random
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.torture.store_cases import Torture, content, make

_LIMITS = {".h5": 200_000, ".zarr": 60_000}
"""A little more than the largest file of a store, so that some writes succeed."""


def _cases(sender: Connection, path: Path, seeds: range) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before, handles = content(make(path, rows=200)), len(list(Path("/proc/self/fd").iterdir()))
    for seed in seeds:
        limit = random.Random(seed).randrange(_LIMITS[path.suffix])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            make(path, rows=300)
            outcome = "written"
        except OSError as error:
            outcome = "refused" if error.errno == errno.EFBIG else f"other: {error}"
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            outcome = f"other: {type(error).__name__}: {str(error)[:80]}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if outcome == "written":
            make(path, rows=200)
        sender.send(outcome if _sound(path, before, handles) else f"unsound after: {outcome}")


def _sound(path: Path, before: object, handles: int) -> bool:
    """The old store is there as it was, nothing is beside it, no file is left open."""
    return (
        content(path) == before
        and [entry.name for entry in path.parent.iterdir()] == [path.name]
        and len(list(Path("/proc/self/fd").iterdir())) <= handles + 1
    )


TORTURE = Torture(_cases, fine=("refused", "written"), noun="limits")


if __name__ == "__main__":
    sys.exit(TORTURE.main(__doc__, 400, share=4))
