#!/usr/bin/env bash
# rgb2hed divides by the logarithm of its smallest value: a stain as strong as its own reference colour has 0.167, not 1,
# and a threshold in optical density from QuPath or a paper is six times too high there. This program measures stain in
# optical density to base 10 and says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-image==0.26.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import skimage
from skimage.color import rgb2hed, rgb_from_hed

density = rgb_from_hed[0]  # optical density, base 10, of one unit of haematoxylin in red, green and blue
colour = 10.0 ** -density
seen = rgb2hed(colour[None, None])[0, 0]
print("scikit-image", skimage.__version__)
print("expected: haematoxylin 1, eosin 0, DAB 0")
print("seen:", ", ".join(f"{name} {value:.3f}" for name, value in zip(("haematoxylin", "eosin", "DAB"), seen)))
assert abs(seen[0] - 1 / 6) < 1e-6
assert np.abs(seen[1:]).max() < 1e-6
PYTHON
