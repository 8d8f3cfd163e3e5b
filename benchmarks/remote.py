"""Slides at an address: bytes to open, to a first tile and for all patches, and the rate over a link.

    python -m benchmarks.remote SLIDE.svs            # bytes, beside tiffslide over fsspec
    python -m benchmarks.remote SLIDE.svs --link     # embed over 20 ms and 1 Gbit/s, beside the local file
    python -m benchmarks.remote SLIDE.svs --large    # bytes of opening slides of 1 GB, and of one patch

Needs the extra `remote`. The server is a process of its own on the loopback (`benchmarks.range_server`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.range_server import serving
from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.reading.patch_reader import PatchReader, SlidePatches
from wsi_pipeline.remote.traffic import traffic
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.tiling.resolve import PatchGeometry

SIDE = 256
LARGE_BYTES = 1 << 30
_CODES = {"jpeg": "jpeg", "jpeg2000": 33005, "lzw": "lzw", "deflate": "deflate", "none": None}
RUNS = 3


@contextmanager
def linked(folder: Path, delay_ms: float, gbit: float) -> Iterator[str]:
    """The address of a server process behind a link."""
    words = [sys.executable, "-m", "benchmarks.range_server", str(folder)]
    words += ["--delay-ms", str(delay_ms), "--gbit", str(gbit)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def grid(width: int, height: int, by_columns: bool = False) -> list[tuple[int, int]]:
    """Corners of the patches that lie wholly on level 0."""
    xs, ys = range(0, width - SIDE + 1, SIDE), range(0, height - SIDE + 1, SIDE)
    return [(x, y) for x in xs for y in ys] if by_columns else [(x, y) for y in ys for x in xs]


def bytes_table(path: Path) -> None:
    """Print megabytes and requests of each way for each task, and the bytes of the tiles on disk."""
    with open_slide(path) as local:
        size, tiles = local.info.size, local.tiles(0)
        stored = 0 if tiles is None else int(tiles.counts.sum())  # type: ignore[attr-defined]
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, tiles of level 0 {stored / 1e6:.1f} MB")
    print(f"{'way':<34}{'open':>14}{'first tile':>14}{'rows':>16}{'columns':>16}   MB (requests), from opening on")
    every = {name: grid(size.width, size.height, name == "columns") for name in ("rows", "columns")}
    tasks = {"open": [], "first tile": [(size.width // 2, size.height // 2)], **every}
    ways: dict[str, Callable[[str, list[tuple[int, int]]], None]] = {
        "wsi-pipeline": by_us,
        "tiffslide, fsspec's default cache": lambda address, corners: by_tiffslide(address, corners, None),
        "tiffslide, blockcache": lambda address, corners: by_tiffslide(address, corners, "blockcache"),
    }
    for name, way in ways.items():
        cells = []
        for corners in tasks.values():
            with tempfile.TemporaryDirectory() as cache, serving(path.parent) as server:
                os.environ["WSI_PIPELINE_CACHE"] = cache
                way(f"{server.address}/{path.name}", corners)
                cells.append(f"{server.sent / 1e6:.2f} ({server.requests})")
        print(f"{name:<34}{cells[0]:>14}{cells[1]:>14}{cells[2]:>16}{cells[3]:>16}", flush=True)


def by_us(address: str, corners: list[tuple[int, int]]) -> None:
    """Read patches one by one, as a user of `read_region` does."""
    with open_slide(address) as slide:
        for x, y in corners:
            slide.read_region(x, y, 0, SIDE, SIDE)


def by_tiffslide(address: str, corners: list[tuple[int, int]], cache: str | None) -> None:
    """The same with tiffslide over fsspec."""
    import fsspec
    import tiffslide

    options: dict[str, Any] = {} if cache is None else {"cache_type": cache}
    fsspec.filesystem("http").clear_instance_cache()
    with fsspec.open(address, **options) as file, tiffslide.TiffSlide(file) as slide:
        for x, y in corners:
            slide.read_region((x, y), 0, (SIDE, SIDE), as_array=True)


def large_table(path: Path) -> None:
    """Print the traffic of opening a slide of 1 GB and of its first patch, for each compression of its tiles.

    Its one level repeats a piece of `path` until the file has 1 GB.
    """
    print(f"{'tiles':<12}{'GB':>6}{'px':>8}{'open':>16}{'one patch':>16}{'its tile':>12}   MB (requests)")
    with open_slide(path) as slide, tempfile.TemporaryDirectory() as name:
        middle = slide.info.size.width // 2, slide.info.size.height // 2
        piece = slide.read_region(*middle, 0, 4 * SIDE, 4 * SIDE)
        for compression in ("jpeg", "jpeg2000", "lzw", "deflate", "none"):
            file = Path(name) / f"{compression}.tif"
            side = write_large(file, piece, compression)
            with tempfile.TemporaryDirectory() as cache, serving(file.parent) as server:
                os.environ["WSI_PIPELINE_CACHE"] = cache
                before = traffic()
                with open_slide(f"{server.address}/{file.name}") as remote:
                    opened = traffic() - before
                    remote.read_region(side // 2 // SIDE * SIDE, 0, 0, SIDE, SIDE)
                    patch = traffic() - before - opened
                    tile = int(remote.tiles(0).counts[side // 2 // SIDE])  # type: ignore[union-attr, attr-defined]
            told = [f"{read.nbytes / 1e6:.3f} ({read.requests})" for read in (opened, patch)]
            size = file.stat().st_size / 1e9
            print(f"{compression:<12}{size:>6.2f}{side:>8}{told[0]:>16}{told[1]:>16}{tile / 1e6:>12.3f}", flush=True)
            file.unlink()


def write_large(path: Path, piece: np.ndarray, compression: str) -> int:
    """A tiled TIFF of about 1 GB made of the tiles of `piece` again and again; returns its side in pixels."""
    kind: dict[str, Any] = {"compression": _CODES[compression], "photometric": "rgb", "tile": (SIDE, SIDE)}
    with tifffile.TiffWriter(path) as writer:
        writer.write(piece, metadata=None, **kind)
    with tifffile.TiffFile(path) as tiff, path.open("rb") as file:
        page, tiles = tiff.pages.first, []
        if page.jpegtables is not None:
            raise SystemExit("tables of its own")
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            tiles.append(file.read(count))
        kind["photometric"] = page.photometric
    columns = round((LARGE_BYTES / (sum(map(len, tiles)) / len(tiles))) ** 0.5)
    side = columns * SIDE
    numbers = np.random.default_rng(0).integers(0, len(tiles), columns * columns)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        every = (tiles[number] for number in numbers)
        writer.write(every, shape=(side, side, 3), dtype=np.uint8, metadata=None, **kind)
    return side


def link_table(path: Path, names: list[str], patches: int, link: tuple[float, float]) -> None:
    """Print patches per second of reading alone and of the encoder `colour`, local and over the link, alternately."""
    encoder = plan_encoder("colour").open("cpu", "fp32")
    every: dict[str, Callable[[np.ndarray], object]] = {"reading": lambda batch: None, "colour": encoder.encode}
    ways = {name: every[name] for name in names}
    print(f"{path.name} over {link[0]:g} ms and {link[1]:g} Gbit/s")
    with linked(path.parent, *link) as address:
        for name, use in ways.items():
            rates: dict[str, list[float]] = {"local": [], "link": []}
            for _ in range(RUNS):
                rates["local"].append(rate(str(path), use, patches))
                with tempfile.TemporaryDirectory() as cache:
                    os.environ["WSI_PIPELINE_CACHE"] = cache
                    before = traffic()
                    rates["link"].append(rate(f"{address}/{path.name}", use, patches))
                    read = traffic() - before
            best = {where: max(found) for where, found in rates.items()}
            print(
                f"{name:<16} local {best['local']:8.1f}/s   link {best['link']:8.1f}/s   "
                f"{100 * best['link'] / best['local']:.0f} %   {read}",
                flush=True,
            )


def rate(name: str, use: Callable[[np.ndarray], object], patches: int) -> float:
    """Patches per second, opening included, with two threads."""
    started = time.perf_counter()
    with closing(open_slide(name)) as slide:
        size = slide.info.size
        coords = np.array(grid(size.width, size.height), np.int64)
        middle = (len(coords) - patches) // 2
        coords = coords[middle : middle + patches] if patches else coords
        source = SlidePatches(slide, coords, PatchGeometry(SIDE, SIDE, SIDE, 0, SIDE, 0.5, resampled=False))
        for _, batch in PatchReader(source, 64, 2):
            use(batch)
    return len(coords) / (time.perf_counter() - started)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--link", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--ways", nargs="+", default=["reading", "colour"], choices=["reading", "colour"])
    parser.add_argument("--patches", type=int, default=0, help="with --link, only so many from the middle; 0: all")
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--gbit", type=float, default=1.0)
    given = parser.parse_args()
    if given.large:
        large_table(given.slide)
    elif given.link:
        link_table(given.slide, given.ways, given.patches, (given.delay_ms, given.gbit))
    else:
        bytes_table(given.slide)


if __name__ == "__main__":
    main()
