#!/usr/bin/env bash
# fastslide's `read_region(location, level, size)` has the name, the order and the types of OpenSlide's. OpenSlide takes
# the location in pixels of level 0 whatever the level; fastslide in pixels of that level. So code moved from one to the
# other reads tissue from elsewhere at every level but the first, without an error as long as it is inside. At the edge
# OpenSlide's picture keeps its size, fastslide's is cut short. This program gives locations in pixels of level 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  fastslide==0.8.1 openslide-python==1.4.7 openslide-bin tifffile==2026.3.3 imagecodecs
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import openslide
import tifffile
from fastslide import FastSlide

WIDTH, HEIGHT, PLACE, SIDE = 1500, 1000, (200, 120), 16
row, column = np.mgrid[:HEIGHT, :WIDTH]
picture = np.stack([column // 6, row // 4, np.full_like(row, 90)], 2).astype(np.uint8)
stated = {"photometric": "rgb", "metadata": None, "compression": "lzw"}
about = "Aperio Image Library v11.2.1\n1500x1000 [0,0 1500x1000] (256x256)|AppMag = 20|MPP = 0.5"
with tifffile.TiffWriter("slide.svs") as file:
    file.write(picture, tile=(256, 256), description=about, **stated)
    file.write(picture[::4, ::4], description="thumbnail", **stated)
    file.write(picture[2::4, 2::4], tile=(256, 256), description=about, **stated)


def pixels(slide: openslide.OpenSlide | FastSlide, place: tuple[int, int], level: int, side: int) -> np.ndarray:
    read = slide.read_region(place, level, (side, side))
    return np.asarray(read.numpy() if isinstance(slide, FastSlide) else read)[..., :3].astype(int)


old, new = openslide.OpenSlide("slide.svs"), FastSlide.from_file_path("slide.svs")
assert tuple(old.level_dimensions) == tuple(new.level_dimensions) == ((WIDTH, HEIGHT), (375, 250))
one, other = pixels(old, PLACE, 1, SIDE)[0, 0], pixels(new, PLACE, 1, SIDE)[0, 0]
edge = [pixels(slide, (WIDTH - 50, HEIGHT - 50), 0, 100).shape for slide in (old, new)]
x, y = PLACE
print("fastslide", version("fastslide"), "OpenSlide", openslide.__library_version__, "openslide-python", openslide.__version__)
print(f"expected: one pixel of level 1 at {PLACE}, and 100 x 100 pixels across the edge")
print(f"seen: OpenSlide {one}, the picture's pixel ({x}, {y}); fastslide {other}, the picture's pixel ({4 * x}, {4 * y})")
print(f"seen: across the edge {edge[0]} and {edge[1]}")
assert np.abs(one - picture[y, x]).max() <= 1
assert np.abs(other - picture[4 * y, 4 * x]).max() <= 1
assert edge == [(100, 100, 3), (50, 50, 3)]
PYTHON
