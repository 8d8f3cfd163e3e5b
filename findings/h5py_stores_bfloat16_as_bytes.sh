#!/usr/bin/env bash
# Features in bfloat16 go into an HDF5 file without a word and come out as two raw bytes each, of dtype V2: no arithmetic
# works on them and nothing says what they were. Zarr refuses them. This program stores float16 or float32 and refuses such
# files by name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  h5py==3.16.0 zarr==3.1.6 ml_dtypes==0.5.4 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import h5py
import ml_dtypes
import numpy as np
import zarr

features = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
with h5py.File("slide.h5", "w") as file:
    file["features"] = features
with h5py.File("slide.h5") as file:
    back = file["features"][:]
print("h5py", h5py.__version__, "zarr", zarr.__version__)
print("expected: numbers of dtype bfloat16, or a refusal")
print(f"seen: h5py {back.dtype}, first value {back[0, 1]!r}")
try:
    zarr.open_group("slide.zarr", mode="w").create_array("features", data=features)
    refused = ""
except ValueError as error:
    refused = str(error)
print("zarr:", refused)
assert back.dtype == np.dtype("V2")
assert np.array_equal(back.view(ml_dtypes.bfloat16), features)
assert "bfloat16" in refused
PYTHON
