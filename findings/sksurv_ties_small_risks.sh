#!/usr/bin/env bash
# concordance_index_censored takes risks that differ by less than 1e-8 for ties. A model whose risks are small numbers,
# such as probabilities of rare events, gets 0.5 whatever it says. This program compares risks as they are.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-survival==0.28.0 lifelines==0.30.3
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import lifelines
import numpy as np
import sksurv
from lifelines.utils import concordance_index
from sksurv.metrics import concordance_index_censored

time, event = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4, bool)
risk = np.array([4e-9, 3e-9, 2e-9, 1e-9])  # the shorter the time, the higher: a perfect order
seen = concordance_index_censored(event, time, risk)[0]
other = concordance_index(time, -risk, event)
print("scikit-survival", sksurv.__version__, "lifelines", lifelines.__version__)
print("expected: 1, as of the same risks times a million")
print(f"seen: {seen:.1f}; lifelines {other:.1f}; times a million {concordance_index_censored(event, time, risk * 1e6)[0]:.1f}")
assert seen == 0.5
assert other == 1
assert concordance_index_censored(event, time, risk * 1e6)[0] == 1
PYTHON
