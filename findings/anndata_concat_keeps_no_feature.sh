#!/usr/bin/env bash
# anndata.concat keeps the columns that all tables share. Features of two encoders share none, and the result has all
# patches and no feature, with no word about it. This program keeps the features of each encoder in a folder of their own
# and never joins two.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check anndata==0.12.6 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import anndata
import numpy as np
import pandas as pd


def features(slide: str, encoder: str) -> anndata.AnnData:
    """Three patches of a slide, four features of an encoder."""
    patches = pd.DataFrame(index=[f"{slide}-{k}" for k in range(3)])
    columns = pd.DataFrame(index=[f"{encoder}-{k}" for k in range(4)])
    return anndata.AnnData(np.ones((3, 4), "float32"), obs=patches, var=columns)


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    joined = anndata.concat([features("slide1", "uni"), features("slide2", "conch")])
print("anndata", version("anndata"))
print("expected: an error, or 6 x 8 with missing values")
print(f"seen: {joined.shape[0]} x {joined.shape[1]}, {len(said)} warnings")
assert joined.shape == (6, 0)
assert not said
outer = anndata.concat([features("slide1", "uni"), features("slide2", "conch")], join="outer")
assert outer.shape == (6, 8)
PYTHON
