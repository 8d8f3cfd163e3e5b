#!/usr/bin/env bash
# In a Zarr group with consolidated metadata, arrays that were added later are there on disk and in no listing: features
# appended to a slide's store look as if they had never been written. This program reads the folders of other tools
# without consolidated metadata.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check zarr==3.1.6 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import zarr

warnings.simplefilter("ignore")
zarr.open_group("slide.zarr", mode="w").create_array("coords", data=np.zeros((4, 2), "int32"))
zarr.consolidate_metadata("slide.zarr")
added = zarr.open_group("slide.zarr", mode="a")
added.create_array("features", data=np.ones((4, 3), "float32"))
added.attrs["encoder"] = "a"
seen = zarr.open_group("slide.zarr", mode="r")
whole = zarr.open_group("slide.zarr", mode="r", use_consolidated=False)
alone = zarr.open_array("slide.zarr/features", mode="r")
print("zarr", zarr.__version__)
print("expected: arrays coords and features, encoder 'a'")
print(f"seen: arrays {sorted(seen)}, attributes {dict(seen.attrs)}; without consolidated metadata {sorted(whole)}")
assert sorted(seen) == ["coords"]
assert "features" not in seen
assert sorted(whole) == ["coords", "features"]
assert alone.shape == (4, 3)
PYTHON
