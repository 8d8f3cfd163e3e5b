"""Make a huge slide with sparse tissue: a pyramidal tiled JPEG BigTIFF as an Aperio scanner writes it.

    python benchmarks/big_slide.py big.svs                          100,000 x 100,000 px, four levels
    python benchmarks/big_slide.py big.svs --single-level           only level 0
    python benchmarks/big_slide.py small.svs --width 8000 --height 6000

Tiles are written one after another, so memory stays small whatever the size. Tissue is a few ellipses filled
with 48 different tiles of made-up H&E texture; blank tiles are one JPEG written again and again.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFilter

TILE, QUALITY, TEXTURES = 256, 80, 48
LEVELS = (1, 4, 16, 64)
ELLIPSES = ((0.24, 0.28, 0.13, 0.09), (0.62, 0.55, 0.16, 0.12), (0.30, 0.74, 0.07, 0.14), (0.85, 0.18, 0.05, 0.05))
"""Tissue: centre x, centre y, half width, half height as fractions of the slide; about 13 % of its area."""

_MAKER = "Aperio Image Library v12.0.0 \r\n"

Pixels = NDArray[np.uint8]


def make_big_slide(
    path: Path,
    *,
    width: int = 100_000,
    height: int = 100_000,
    mpp: float = 0.25,
    levels: Sequence[int] = LEVELS,
    seed: int = 0,
) -> Path:
    """Write the slide and return its path.

    width, height   level-0 pixels
    mpp             micrometres per level-0 pixel, written into the Aperio description with 40x
    levels          shrink of each level, powers of two up to 256, 1 first; (1,) for a single level
    """
    if any(step & (step - 1) or not 1 <= step <= TILE for step in levels):
        raise ValueError(f"levels must be powers of two from 1 to {TILE}, got {tuple(levels)}")
    textures = _textures(seed)
    slide = (width, height)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, step in enumerate(levels):
            _write_level(writer, _Painter(slide, step, textures), mpp)
            if number == 0:
                _write_thumbnail(writer, slide, textures)
    return path


def _write_level(writer: tifffile.TiffWriter, painter: _Painter, mpp: float) -> None:
    (width, height), (columns, rows) = painter.slide, painter.size
    arrow = "" if painter.step == 1 else f" -> {columns}x{rows}"
    writer.write(
        painter.tiles(),
        shape=(rows, columns, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="ycbcr",
        compression="jpeg",
        subsampling=(2, 2),
        metadata=None,
        description=f"{_MAKER}{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}){arrow} "
        f"JPEG/RGB Q={QUALITY}|AppMag = 40|MPP = {mpp:g}",
    )


def _write_thumbnail(writer: tifffile.TiffWriter, slide: tuple[int, int], textures: Sequence[Pixels]) -> None:
    """The second image of an Aperio file: stripped, small, not part of the pyramid."""
    step = next((step for step in (1, 2, 4, 8, 16, 32, 64, 128) if max(slide) <= 1024 * step), TILE)
    image = _Painter(slide, step, textures).image()
    description = f"{_MAKER}{slide[0]}x{slide[1]} -> {image.shape[1]}x{image.shape[0]} - "
    writer.write(image, photometric="rgb", compression="jpeg", rowsperstrip=16, metadata=None, description=description)


class _Painter:
    """One level of the slide, tile by tile."""

    def __init__(self, slide: tuple[int, int], step: int, textures: Sequence[Pixels]) -> None:
        self.slide, self.step = slide, step
        self.size = (max(1, slide[0] // step), max(1, slide[1] // step))
        self.grid = (-(-self.size[0] // TILE), -(-self.size[1] // TILE))
        self.textures = np.stack([np.asarray(Image.fromarray(texture).reduce(step)) for texture in textures])
        self._blank = _jpeg(np.full((TILE, TILE, 3), 255, np.uint8))
        self._inner = lru_cache(maxsize=TEXTURES)(lambda number: _jpeg(self.textures[number]))

    def tiles(self) -> Iterator[bytes]:
        """JPEG bytes of each tile, row by row."""
        for row in range(self.grid[1]):
            for column in range(self.grid[0]):
                touched, inside = self._coverage(row, column)
                if not touched:
                    yield self._blank
                elif inside and self.step == 1:
                    yield self._inner(int(_choice(row, column)))
                else:
                    yield _jpeg(self._pixels(row, column))

    def image(self) -> Pixels:
        """The whole level (h, w, 3); for levels that fit in memory."""
        rows = [np.hstack([self._pixels(row, column) for column in range(self.grid[0])]) for row in range(self.grid[1])]
        return np.ascontiguousarray(np.vstack(rows)[: self.size[1], : self.size[0]])

    def _pixels(self, row: int, column: int) -> Pixels:
        """One tile (256, 256, 3), put together from the textures of step x step level-0 tiles."""
        cells = np.arange(self.step)
        numbers = _choice(row * self.step + cells[:, None], column * self.step + cells[None])
        image = self.textures[numbers].transpose(0, 2, 1, 3, 4).reshape(TILE, TILE, 3)
        offset = (np.arange(TILE) + 0.5) * self.step
        field = self._field(column * TILE * self.step + offset, row * TILE * self.step + offset)
        image[field > 1] = 255
        return image

    def _coverage(self, row: int, column: int) -> tuple[bool, bool]:
        """(tissue touches the tile, tissue fills the tile), from a grid of 9 x 9 points."""
        span = TILE * self.step
        field = self._field(np.linspace(column, column + 1, 9) * span, np.linspace(row, row + 1, 9) * span)
        return bool((field <= 1).any()), bool((field <= 1).all())

    def _field(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """At most 1 inside tissue, for level-0 positions x (columns) and y (rows)."""
        width, height = self.slide
        shapes = [
            (((x / width - cx) / rx) ** 2)[None] + (((y / height - cy) / ry) ** 2)[:, None]
            for cx, cy, rx, ry in ELLIPSES
        ]
        return np.min(shapes, axis=0)


def _choice(row: int | NDArray[np.int64], column: int | NDArray[np.int64]) -> Any:
    """Which texture fills level-0 tile (row, column)."""
    return (row * 31 + column * 17 + row * column % 7) % TEXTURES


@lru_cache(maxsize=1)
def _textures(seed: int) -> list[Pixels]:
    return [texture(np.random.default_rng((seed, number))) for number in range(TEXTURES)]


def texture(rng: np.random.Generator) -> Pixels:
    """One tile of made-up H&E: eosin stroma with fibres, and dark nuclei."""
    grain = Image.fromarray(rng.integers(0, 256, (TILE, TILE), np.uint8)).filter(ImageFilter.BoxBlur((9, 1)))
    fibre = (np.asarray(grain, np.float64)[..., None] - 128) * 0.8
    image = np.array([222, 150, 188]) + fibre
    y, x = np.mgrid[:TILE, :TILE]
    for cx, cy, radius in zip(*rng.uniform(0, TILE, (2, 40)), rng.uniform(5, 11, 40), strict=True):
        distance = np.hypot((x - cx) * rng.uniform(0.7, 1.3), y - cy) / radius
        nucleus = np.clip(3 - 3 * distance, 0, 1)[..., None]
        image = image * (1 - nucleus) + np.array([96, 58, 140]) * nucleus
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def _jpeg(tile: Pixels) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(tile, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")
    )


def main() -> None:
    """Read the command line, make the slide, print what was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--width", type=int, default=100_000, help="level-0 pixels")
    parser.add_argument("--height", type=int, default=100_000, help="level-0 pixels")
    parser.add_argument("--mpp", type=float, default=0.25, help="micrometres per level-0 pixel")
    parser.add_argument("--single-level", action="store_true", help="no pyramid")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    levels = (1,) if args.single_level else LEVELS
    make_big_slide(args.path, width=args.width, height=args.height, mpp=args.mpp, levels=levels, seed=args.seed)
    seconds, megabytes = time.perf_counter() - start, args.path.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{args.path}  {args.width} x {args.height} px, {len(levels)} levels, {megabytes:.0f} MB")
    print(f"made in {seconds:.0f} s, peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
