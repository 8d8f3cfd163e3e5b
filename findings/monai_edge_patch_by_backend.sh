#!/usr/bin/env bash
# A patch that reaches beyond the slide's right edge: MONAI's WSIReader returns it whole, black beyond the edge, with
# OpenSlide, and shorter with tifffile. Black is neither tissue nor glass, and a shorter patch breaks a batch. This
# program fills with white and never lays a patch beyond the edge unless asked.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  monai==1.6.1 torch==2.15.0 tifffile==2026.3.3 openslide-python==1.4.7 openslide-bin==4.0.1.2
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
import monai
import numpy as np
import tifffile
from monai.data import WSIReader

picture = np.full((1024, 1024, 3), 240, np.uint8)
tifffile.imwrite("slide.tif", picture, tile=(256, 256), photometric="rgb", resolution=(20000, 20000), resolutionunit=3)
seen = {}
for backend in ("openslide", "tifffile"):
    reader = WSIReader(backend=backend)
    seen[backend], _ = reader.get_data(reader.read("slide.tif"), location=(100, 900), size=(256, 256), level=0)
print("MONAI", monai.__version__)
print("expected: the same patch by both, 3 x 256 x 256, its part beyond the edge white or refused")
for backend, patch in seen.items():
    print(f"seen: {backend} {patch.shape}, values {np.unique(patch).tolist()}")
assert seen["openslide"].shape == (3, 256, 256)
assert sorted(np.unique(seen["openslide"])) == [0, 240]
assert seen["tifffile"].shape == (3, 256, 124)
PYTHON
