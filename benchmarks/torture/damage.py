"""Flip bytes of stores and cut files: nothing may be read as something else, nothing may crash the reader.

    python -m benchmarks.torture.damage --cases 3000

Each case is one flipped bit or byte, or one cut, in a small store of every array there is, read whole afterwards. It
ends in one of: found (DamagedStoreError), harmless (the byte holds nothing; all is read as written), wrong (something
else was read), other (another error), crash (the reading process died).
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from wsi_pipeline.errors import DamagedStoreError
from wsi_pipeline.store.files import create_store, open_store
from wsi_pipeline.store.store import ArraySpec

SUFFIXES = (".h5", ".zarr")
_STUCK_SECONDS = 30.0


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


def verdict(path: Path, whole: dict[str, Any]) -> str:
    """What reading the store comes to."""
    try:
        return "harmless" if content(path) == whole else "wrong"
    except DamagedStoreError:
        return "found"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return f"other: {type(error).__name__}: {str(error)[:80]}"


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one bit or byte changed, or, once in ten, cut."""
    where = rng.randrange(len(data))
    if rng.random() < 0.1:
        return data[:where]
    out = bytearray(data)
    out[where] ^= rng.choice([0xFF, 1 << rng.randrange(8)])
    return bytes(out)


def _cases(sender: Connection, path: Path, seeds: range) -> None:
    whole = content(path)
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    bytes_of = {file: file.read_bytes() for file in files}
    for seed in seeds:
        rng = random.Random(seed)
        victim = rng.choices(files, [len(bytes_of[file]) for file in files])[0]
        victim.write_bytes(damaged(bytes_of[victim], rng))
        sender.send(verdict(path, whole))
        victim.write_bytes(bytes_of[victim])


def torture(folder: Path, suffix: str, cases: int, seed: int) -> Counter[str]:
    """So many cases on a store with that suffix; returns verdict -> how often."""
    tally: Counter[str] = Counter()
    context, first = multiprocessing.get_context("spawn"), seed
    while first < seed + cases:  # a reader that died is replaced
        receiver, sender = context.Pipe(duplex=False)
        path = make(folder / f"{first}{suffix}")
        reader = context.Process(target=_cases, args=(sender, path, range(first, seed + cases)))
        reader.start()
        sender.close()
        try:
            while first < seed + cases:
                if not receiver.poll(_STUCK_SECONDS):
                    reader.kill()
                    tally["stuck"] += 1
                    break
                tally[receiver.recv()] += 1
                first += 1
        except EOFError:
            tally["crash"] += 1
        reader.join()
        first += first < seed + cases
    return tally


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000, help="for HDF5; a fifth of it for Zarr, which is slower")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    bad = 0
    for suffix in SUFFIXES:
        started, cases = time.monotonic(), args.cases if suffix == ".h5" else args.cases // 5
        with tempfile.TemporaryDirectory() as folder:
            tally = torture(Path(folder), suffix, cases, args.seed)
        bad += sum(count for name, count in tally.items() if name not in ("found", "harmless"))
        told = ", ".join(f"{name} {count}" for name, count in tally.most_common())
        print(f"{suffix:<6}{cases} cases: {told}; {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
