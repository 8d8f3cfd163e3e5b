"""What checksums cost: stores read through this program, which compares every row, and by h5py and zarr themselves.

    python benchmarks/store_speed.py

Features of 15,000 patches, 600 raw patches by 16, 3,000 JPEGs; the best of several turns each, taken alternately, from
the page cache, so that the disk is not what is measured. Then a file written with and without flushing it to the disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wsi_pipeline.store.files import create_store, open_store
from wsi_pipeline.store.store import ArraySpec
from wsi_pipeline.system.atomic import write_bytes

BY = 16


def make(path: Path, part: str) -> None:
    """A store with one large array."""
    rng = np.random.default_rng(0)
    with create_store(path) as writer:
        if part == "jpeg":
            writer.append_bytes("jpeg", [rng.bytes(20_000) for _ in range(3000)])
        elif part == "images":
            writer.create(ArraySpec("images", (600, 256, 256, 3), "uint8", 1))
            writer.write("images", 0, rng.integers(0, 255, (600, 256, 256, 3), np.uint8))
        else:
            writer.create(ArraySpec("features", (15_000, 1024), "float16", 256))
            writer.write("features", 0, rng.normal(size=(15_000, 1024)).astype(np.float16))
        writer.set_attrs({"version": 2})


def checked(path: Path, part: str) -> None:
    """Read it through this program."""
    with open_store(path) as store:
        if part == "images":
            for start in range(0, 600, BY):
                store.read(part, start, start + BY)
        else:
            (store.read_bytes if part == "jpeg" else store.read)(part)


def plain(path: Path, part: str) -> None:
    """Read it by its library."""
    file: Any = h5py.File(path, locking=False) if path.suffix == ".h5" else zarr.open_group(str(path), mode="r")
    array = file[part]
    if part == "images":
        for start in range(0, 600, BY):
            np.asarray(array[start : start + BY])
    elif part == "jpeg" and path.suffix == ".h5":
        _ = [item.tobytes() for item in array[:]]
    elif part == "jpeg":
        data, edges = array[:].tobytes(), file["jpeg_offsets"][:]
        _ = [data[edges[row] : edges[row + 1]] for row in range(len(edges) - 1)]
    else:
        np.asarray(array[:])


def seconds(work: Callable[[], None]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':<20} {'checked ms':>11} {'plain ms':>9}")
        for suffix in (".h5", ".zarr"):
            for part in ("features", "images", "jpeg"):
                path = Path(folder) / f"{part}{suffix}"
                make(path, part)
                turns = [[seconds(partial(read, path, part)) for read in (checked, plain)] for _ in range(args.rounds)]
                best = [1000 * min(column) for column in zip(*turns, strict=True)]
                print(f"{part + suffix:<20} {best[0]:>11.1f} {best[1]:>9.1f}", flush=True)
        for durable in (True, False):
            target = Path(folder) / "picture.png"
            taken = [seconds(partial(write_bytes, target, bytes(30_000), durable=durable)) for _ in range(100)]
            told = "flushed" if durable else "not flushed"
            print(f"a file of 30 kB, {told}: median {1000 * median(taken):.2f} ms, mean {10 * sum(taken):.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
