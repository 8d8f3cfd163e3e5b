#!/usr/bin/env bash
# slideio's `read_block(rect, size)` gives a region at any size. It interpolates between the four nearest pixels of the
# stored level and leaves out the others, so that shrinking by 8 takes 4 of 64 pixels. Grain, nuclei and JPEG noise
# alias instead of being averaged: patches of a coarser resolution look sharper and noisier than a scanner's own level,
# and features of them differ by how the file's pyramid happens to be spaced. This program takes area means
# (docs/slides.md).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check slideio==2.10.0 tifffile==2026.3.3 numpy
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import slideio
import tifffile

SIDE, FACTOR = 1024, 8
grain = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
tifffile.imwrite(
    "slide.svs", grain, tile=(256, 256), photometric="rgb", metadata=None,
    description="Aperio Image Library v11.2.1\n1024x1024 [0,0 1024x1024] (256x256)|AppMag = 20|MPP = 0.5",
)
scene = slideio.open_slide("slide.svs", "SVS").get_scene(0)
assert (scene.read_block((0, 0, SIDE, SIDE)) == grain).all()
small = scene.read_block((0, 0, SIDE, SIDE), (SIDE // FACTOR, SIDE // FACTOR)).astype(float)
blocks = grain.reshape(SIDE // FACTOR, FACTOR, SIDE // FACTOR, FACTOR, 3).astype(float)
mean, four = blocks.mean((1, 3)), blocks[:, 3:5, :, 3:5].mean((1, 3))
print("slideio", version("slideio"))
print(f"expected: grain of {grain.std():.1f} grey levels falls to {mean.std():.1f}, {FACTOR} x {FACTOR} to one")
print(f"seen: {small.std():.1f}; the mean of the four middle pixels to {np.abs(small - four).max():.1f}")
assert np.abs(small - four).max() <= 1.0
assert small.std() > 3 * mean.std()
PYTHON
