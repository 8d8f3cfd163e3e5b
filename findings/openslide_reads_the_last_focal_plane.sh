#!/usr/bin/env bash
# OpenSlide takes focal planes of equal size for levels of a pyramid. Code that asks for the best level for a downsample
# of 1, as many patch readers do, gets the last plane. This program reads the first plane and says how many there are.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check openslide-python==1.4.7 openslide-bin==4.0.1.2 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import openslide
import tifffile

PLANES = (50, 120, 200)
with tifffile.TiffWriter("stack.svs") as writer:
    for grey in PLANES:
        writer.write(
            np.full((512, 512, 3), grey, np.uint8), tile=(256, 256), photometric="rgb", compression="jpeg",
            metadata=None, software=False, description="Aperio Image Library v12.0\r\n512x512|AppMag = 20|MPP = 0.5",
        )

print("OpenSlide", openslide.__library_version__, "openslide-python", openslide.__version__)
with openslide.OpenSlide("stack.svs") as slide:
    best = slide.get_best_level_for_downsample(1)
    seen = slide.read_region((0, 0), best, (8, 8)).getpixel((0, 0))[0]
    thumbnail = slide.get_thumbnail((64, 64)).getpixel((3, 3))[0]
    levels, sizes = slide.level_count, set(slide.level_dimensions)
print(f"three planes of grey {PLANES}")
print("expected: one level, and its first plane, 50")
print(f"seen: {levels} levels of {sizes}; the best for downsample 1 is {best}, grey {seen}; thumbnail {thumbnail}")
assert levels == 3 and sizes == {(512, 512)} and best == 2 and seen == thumbnail == 200
PYTHON
