#!/usr/bin/env bash
# cuCIM reads the resolution of an Aperio slide into its metadata and not into `spacing()`, which says 1.0 without a unit;
# of a plain TIFF, spacing() is right. Patches laid by it are four times too large on a 40x slide. This program reads the
# resolution itself and refuses a slide without one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check cucim-cu12==26.10.0 tifffile==2026.3.3 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import tifffile
from cucim import CuImage

pixels = np.full((512, 768, 3), 200, np.uint8)
aperio = "Aperio Image Library v1\n768x512 (256x256)|AppMag = 40|MPP = 0.25"
tile = {"tile": (256, 256), "photometric": "rgb"}
tifffile.imwrite("slide.svs", pixels, description=aperio, **tile)
tifffile.imwrite("slide.tif", pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **tile)
svs, plain = CuImage("slide.svs"), CuImage("slide.tif")
print("cucim", version("cucim-cu12"))
print("expected: spacing 0.25 micrometer of both files")
print(f"seen: slide.svs {svs.spacing()[0]} {svs.spacing_units()[0]!r}, though its metadata say MPP", end=" ")
print(f"{svs.metadata['aperio']['MPP']}; slide.tif {plain.spacing()[0]} {plain.spacing_units()[0]!r}")
assert svs.metadata["aperio"]["MPP"] == "0.25"
assert (svs.spacing()[0], svs.spacing_units()[0]) == (1.0, "")
assert (plain.spacing()[0], plain.spacing_units()[0]) == (0.25, "micrometer")
PYTHON
