#!/usr/bin/env bash
# A TIFF slide may hold its tiles uncompressed, which every baseline TIFF reader understands. fastslide opens one, gives
# its size and resolution, and returns white for every region: that it has no decoder for the tiles stands on standard
# error only, and no exception is raised. A cohort in which some slides are stored so yields slides without tissue, or
# white patches. This program reads such tiles, and a tile that cannot be decoded is an error that names the slide.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check fastslide==0.8.1 tifffile==2026.3.3 imagecodecs
cd "$work"
"$work/venv/bin/python" - <<'PYTHON' 2>said
from importlib.metadata import version

import numpy as np
import tifffile
from fastslide import FastSlide

picture = np.random.default_rng(0).integers(0, 200, (1000, 1500, 3), np.uint8)
about = "Aperio Image Library v11.2.1\n1500x1000 [0,0 1500x1000] (256x256)|AppMag = 20|MPP = 0.5"
read = {}
for kind in ("lzw", None):
    with tifffile.TiffWriter("slide.svs") as file:
        tiled = {"tile": (256, 256), "compression": kind, "description": about, "photometric": "rgb", "metadata": None}
        file.write(picture, **tiled)
        file.write(picture[::4, ::4], compression="lzw", description="thumbnail", photometric="rgb", metadata=None)
        file.write(picture[::4, ::4], **tiled)
    slide = FastSlide.from_file_path("slide.svs")
    assert (slide.dimensions, slide.mpp) == ((1500, 1000), (0.5, 0.5))
    read[kind] = slide.read_region((0, 0), 0, (64, 64)).numpy()
print("fastslide", version("fastslide"), "tifffile", tifffile.__version__)
print("expected: the picture from both files, or an exception for the one without compression")
print(f"seen: LZW equal {bool((read['lzw'] == picture[:64, :64]).all())}; uncompressed {np.unique(read[None])}, no exception")
assert (read["lzw"] == picture[:64, :64]).all()
assert (read[None] == 255).all()
PYTHON
grep -m 1 -o 'Unsupported compression scheme 1' said
