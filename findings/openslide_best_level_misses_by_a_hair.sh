#!/usr/bin/env bash
# The best level for downsample 4 of a slide 1,026 pixels wide is the full resolution: 1026 / 256 is 4.008, and
# get_best_level_for_downsample never takes a level that is coarser than asked, be it by two in a thousand. Each patch then
# costs sixteen times the pixels. This program allows a level to be coarser by a stated tolerance.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import openslide
import tifffile

best = {}
print("OpenSlide", openslide.__library_version__)
print("expected: level 1 is the best for downsample 4, for a slide of 1,024 pixels and for one of 1,026")
for width in (1024, 1026):
    with tifffile.TiffWriter(f"{width}.tif") as writer:
        for side, reduced in ((width, 0), (width // 4, 1)):
            level = np.full((side, side, 3), 200, np.uint8)
            writer.write(level, tile=(256, 256), photometric="rgb", compression="deflate", subfiletype=reduced)
    slide = openslide.OpenSlide(f"{width}.tif")
    best[width] = slide.get_best_level_for_downsample(4)
    print(f"seen: {width} pixels, downsamples {slide.level_downsamples}: level {best[width]}")
assert best == {1024: 1, 1026: 0}
PYTHON
