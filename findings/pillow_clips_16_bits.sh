#!/usr/bin/env bash
# Pillow turns 16 bits into 8 by cutting values above 255 off. A microscope's picture of 12 bits in 16, opened and
# converted as 8-bit ones are, is white almost everywhere. This program keeps the upper 8 bits of labelled images, and
# refuses such slides until the range to show is named.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import PIL
from PIL import Image

ramp = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
Image.fromarray(ramp).save("ramp.tif")
print("Pillow", PIL.__version__)
with Image.open("ramp.tif") as image:
    mode, seen = image.mode, np.asarray(image.convert("L"))
white = float((seen == 255).mean())
print("expected: a ramp from black to white, 255 once")
print(f"seen: mode {mode}; {white:.0%} of the pixels are 255")
assert mode == "I;16"
assert np.array_equal(seen, np.minimum(ramp, 255))
assert white > 0.9
PYTHON
