#!/usr/bin/env bash
# The location of OpenSlide's read_region is in pixels of level 0. Where it is no multiple of the level's downsample,
# OpenSlide 4 mixes neighbouring pixels of the level, so that the patch is blurred; tiffslide rounds down. Two readers
# then give two networks other pixels, and nothing says so. This program lays its grid on the pixels of the level it reads.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  openslide-python==1.4.7 openslide-bin==4.0.1.2 tiffslide==3.0.1 tifffile==2026.3.3 "zarr<3.2" numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import openslide
import tiffslide
import tifffile

rng = np.random.default_rng(0)
fine = rng.integers(0, 255, (1024, 1024, 3), np.uint8)
coarse = rng.integers(0, 255, (256, 256, 3), np.uint8)
with tifffile.TiffWriter("slide.tif") as writer:
    for level, reduced in ((fine, 0), (coarse, 1)):
        writer.write(level, tile=(256, 256), photometric="rgb", compression="deflate", subfiletype=reduced)
readers = {"openslide": openslide.OpenSlide("slide.tif"), "tiffslide": tiffslide.TiffSlide("slide.tif")}
print("OpenSlide", openslide.__library_version__, "tiffslide", version("tiffslide"))
print("expected: level 1 at x = 0, 1, 2, 3 of level 0 shows pixels of level 1 as they are stored")
stored = coarse[:64, :65].astype(float)
for x in range(4):
    seen = {
        name: np.asarray(slide.read_region((x, 0), 1, (64, 64)).convert("RGB")).astype(float)
        for name, slide in readers.items()
    }
    mixed = (1 - x / 4) * stored[:, :-1] + x / 4 * stored[:, 1:]
    off = {name: float(np.abs(pixels - stored[:, :-1]).max()) for name, pixels in seen.items()}
    print(f"seen at x = {x}: largest difference from the stored pixels, openslide {off['openslide']:.0f}, ", end="")
    print(f"tiffslide {off['tiffslide']:.0f}")
    assert off["tiffslide"] == 0
    assert np.abs(seen["openslide"] - mixed).max() <= 1
PYTHON
