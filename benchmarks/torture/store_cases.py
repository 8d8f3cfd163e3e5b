"""What `damage` and `disk` share: a small store of every array there is, and many cases on it in child processes."""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from wsi_pipeline.store.files import create_store, open_store
from wsi_pipeline.store.store import ArraySpec

SUFFIXES = (".h5", ".zarr")
_STUCK_SECONDS = 30.0

Cases = Callable[[Connection, Path, range], None]
"""Sends one verdict per seed; its store, whose suffix says which backend, is its own to make."""


@dataclass(frozen=True)
class Torture:
    """Cases of one kind.

    cases   runs in a child process; must be a function of a module
    fine    verdicts that a sound program may give
    noun    what the cases are, for the printed line
    """

    cases: Cases
    fine: tuple[str, ...]
    noun: str = "cases"

    def run(self, folder: Path, suffix: str, count: int, seed: int) -> Counter[str]:
        """So many cases on a store with that suffix: verdict -> how often; `crash` and `stuck` are its own."""
        tally: Counter[str] = Counter()
        context, first = multiprocessing.get_context("spawn"), seed
        while first < seed + count:  # a child that died is replaced, in a folder without its remains
            home = folder / str(first)
            home.mkdir()
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=self.cases, args=(sender, home / f"a{suffix}", range(first, seed + count)))
            child.start()
            sender.close()
            try:
                while first < seed + count:
                    if not receiver.poll(_STUCK_SECONDS):
                        child.kill()
                        tally["stuck"] += 1
                        break
                    tally[receiver.recv()] += 1
                    first += 1
            except EOFError:
                tally["crash"] += 1
            child.join()
            first += first < seed + count
        return tally

    def main(self, doc: str | None, count: int, share: int) -> int:
        """Command line: `count` cases for HDF5, a `share`-th of it for Zarr; 1 if any verdict is not fine."""
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument(
            "--cases", type=int, default=count, help=f"for HDF5; 1/{share} of it for Zarr, which is slower"
        )
        parser.add_argument("--seed", type=int, default=0)
        args = parser.parse_args()
        bad = 0
        for suffix in SUFFIXES:
            started, cases = time.monotonic(), args.cases if suffix == ".h5" else args.cases // share
            with tempfile.TemporaryDirectory() as folder:
                tally = self.run(Path(folder), suffix, cases, args.seed)
            bad += sum(count for name, count in tally.items() if name not in self.fine)
            counts = ", ".join(f"{name} {count}" for name, count in tally.most_common())
            print(f"{suffix:<6}{cases} {self.noun}: {counts}; {time.monotonic() - started:.0f} s")
        return 1 if bad else 0


def make(path: Path, rows: int = 300) -> Path:
    """A store with arrays like ours: coordinates, coverage, features, a compressed mask, JPEGs."""
    rng = np.random.default_rng(0)
    arrays = {
        "coords": (rng.integers(0, 10**5, (rows, 2)), 4096),
        "coverage": (rng.random(rows, dtype=np.float32), 4096),
        "features": (rng.normal(size=(rows, 64)).astype(np.float16), 100),
        "mask": ((rng.random((rows, 100)) > 0.5).astype(np.uint8), 50),
    }
    with create_store(path) as writer:
        for name, (array, chunk) in arrays.items():
            attrs = {"name": "s", "mpp": 0.5, "resampled": False}
            writer.create(ArraySpec(name, array.shape, str(array.dtype), chunk, name == "mask", attrs))
            writer.write(name, 0, array)
        writer.append_bytes("jpeg", [rng.bytes(int(rng.integers(50, 400))) for _ in range(rows)])
        writer.set_attrs({"format": "wsi-pipeline/patches", "version": 2, "digest": "ab" * 32, "specs": "y" * 500})
    return path


def content(path: Path) -> dict[str, Any]:
    """All of a store."""
    with open_store(path) as store:
        parts: dict[str, Any] = {"attrs": store.attrs}
        for name in store.names():
            rows = store.read_bytes(name) if name == "jpeg" else store.read(name).tobytes()
            parts[name] = (store.shape(name), store.array_attrs(name), rows)
        return parts
