#!/usr/bin/env bash
# OME-TIFF states pixel sizes with a unit; micrometres are only its default, and microscopes write nm or mm as well.
# BioIO hands the number over without converting it and names no unit: three files of one resolution, 0.25 um, read as
# 0.25, 250 and 0.00025, all three of type "space" with unit None. Code that takes the number for micrometres cuts
# patches of a thousandth or a thousand times the size. This program converts the unit, and refuses one that it does not
# know.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  bioio==3.6.0 bioio-ome-tiff==1.4.0 tifffile==2026.3.3
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import bioio_ome_tiff
import numpy as np
import tifffile
from bioio import BioImage

found, units = {}, set()
for unit, size in (("µm", 0.25), ("nm", 250.0), ("mm", 0.00025)):
    stated = {f"PhysicalSize{axis}": size for axis in "XY"} | {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    tifffile.imwrite(
        f"{unit}.ome.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", metadata={"axes": "YXS", **stated}
    )
    image = BioImage(f"{unit}.ome.tif", reader=bioio_ome_tiff.Reader)
    found[unit] = image.physical_pixel_sizes.X
    units.add(image.dimension_properties.X.unit)
print("bioio", version("bioio"), "bioio-ome-tiff", version("bioio-ome-tiff"), "tifffile", tifffile.__version__)
print("expected: one size for the three files, or each with its unit")
print(f"seen: {found}, units {units}")
assert found == {"µm": 0.25, "nm": 250.0, "mm": 0.00025}
assert units == {None}
PYTHON
