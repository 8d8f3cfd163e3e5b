#!/usr/bin/env bash
# croma answers .5, the value of a perfectly balanced encoder, where not one sample could be scored: all neighbours share
# both label and site, or neither. A table that keeps `.value` alone shows a neutral encoder; `.support` is 0 and a
# warning is printed, so nothing is hidden. This program's `robustness` leaves the value empty and prints the support.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check croma==1.0.1
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import pandas as pd
from croma import MaRI, RI

print("croma", version("croma"), "scikit-learn", version("scikit-learn"))
rows = np.random.default_rng(0).normal(size=(60, 8))
names = [f"s{number}" for number in range(60)]
table = pd.DataFrame({"sample_id": names, "image_path": "x", "group_id": names})
print("expected: no value (nan), or a refusal, as nothing is scored")
for case, label, site in (("one label, one site", "tumour", "a"), ("all labels and sites differ", names, names)):
    for index in (RI, MaRI):
        found = index.compute(rows, table.assign(label=label, site=site), confounder_column="site", k_candidates=[5])
        print(f"seen, {case}: {index.__name__} {found.value}, support {found.support}")
        assert found.value == 0.5
        assert found.support == 0
PYTHON
