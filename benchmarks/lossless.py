"""Tiles stored without loss: ours beside OpenSlide, on the pixels of a real slide, or of noise without one.

    python benchmarks/lossless.py [SLIDE] [--side 4096] [--rounds 5]

A region is written as tiled TIFF, 256 px a tile: not compressed, LZW and Deflate, with and without a predictor. Both
read all of it, 256 px at a time, with the file opened anew, one thread, in turns. Pixels have to be equal. Ratios are
of processor time, medians over rounds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray

from wsi_pipeline.slides.open import open_slide

TILE = 256
KINDS: dict[str, tuple[str | None, bool]] = {
    "not compressed": (None, False),
    "LZW": ("lzw", False),
    "LZW, predictor": ("lzw", True),
    "Deflate": ("adobe_deflate", False),
    "Deflate, predictor": ("adobe_deflate", True),
}
Pixels = NDArray[np.uint8]


def region(slide: Path | None, side: int) -> Pixels:
    """RGB (side, side, 3) from the middle of a slide, or smooth noise."""
    if slide is None:
        coarse = np.random.default_rng(0).integers(120, 250, (side // 8 + 1, side // 8 + 1, 3)).astype(np.uint8)
        return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:side, :side])
    with open_slide(slide) as opened:
        size = opened.info.size
        side = min(side, size.width, size.height) // TILE * TILE
        return opened.read_region((size.width - side) // 2, (size.height - side) // 2, 0, side, side)


def ours(path: Path, side: int) -> Pixels:
    """All pixels, tile by tile, by our reader."""
    out = np.empty((side, side, 3), np.uint8)
    with open_slide(path) as slide:
        for y in range(0, side, TILE):
            for x in range(0, side, TILE):
                out[y : y + TILE, x : x + TILE] = slide.read_region(x, y, 0, TILE, TILE)
    return out


def theirs(path: Path, side: int) -> Pixels:
    """The same by OpenSlide."""
    out = np.empty((side, side, 3), np.uint8)
    with openslide.OpenSlide(path) as slide:
        for y in range(0, side, TILE):
            for x in range(0, side, TILE):
                out[y : y + TILE, x : x + TILE] = np.asarray(slide.read_region((x, y), 0, (TILE, TILE)))[..., :3]
    return out


def main() -> None:
    """Print one row for each way of storing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    pixels = region(args.slide, args.side)
    side, tiles = len(pixels), (len(pixels) // TILE) ** 2
    print(f"{side} x {side} px of {args.slide.name if args.slide else 'noise'}, {args.rounds} rounds")
    print(f"{'':<20}{'MB':>7}{'ours, ms a tile':>17}{'OpenSlide':>11}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, (compression, predictor) in KINDS.items():
            path = Path(folder) / "a.tif"
            tifffile.imwrite(path, pixels, photometric="rgb", tile=(TILE, TILE), compression=compression,
                             predictor=predictor, resolution=(20000, 20000), resolutionunit="CENTIMETER")  # fmt: skip
            seconds: list[tuple[float, float]] = []
            for _ in range(args.rounds):
                times = []
                for way in (ours, theirs):
                    started = time.process_time()
                    found = way(path, side)
                    times.append(time.process_time() - started)
                    if not np.array_equal(found, pixels):
                        raise SystemExit(f"{name}: {way.__name__} gave other pixels")
                seconds.append((times[0], times[1]))
            ratios = [other / own for own, other in seconds]
            own, other = (statistics.median(part) / tiles * 1e3 for part in zip(*seconds, strict=True))
            spread = f"({min(ratios):.1f} to {max(ratios):.1f})"
            size = path.stat().st_size / 1e6
            print(f"{name:<20}{size:7.1f}{own:17.2f}{other:11.2f}{statistics.median(ratios):8.1f} {spread}")


if __name__ == "__main__":
    main()
