#!/usr/bin/env bash
# Intervals of the package `confidenceinterval` by its default, analytic methods. On cohorts of the size of a small
# study they leave the scale: an AUROC of 0.88 reaches 1.03, a macro F1 of 1 reaches 1.31. And where the classes are
# separated the interval of the AUROC has no width: 20 slides that are all right look as certain as 20,000. A report
# that prints such an interval looks careful and is not. This program resamples patients, which stays within the scale
# but has no width there either; it then warns of it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check confidenceinterval==1.0.5
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import confidenceinterval
import numpy as np

label = np.repeat([0, 1], 10)
score = np.random.default_rng(1).random(20)
mixed = confidenceinterval.roc_auc_score(label, score + 0.6 * label)
apart = confidenceinterval.roc_auc_score(label, score + 2.0 * label)
perfect = confidenceinterval.f1_score(label, label, average="macro")
print("confidenceinterval", version("confidenceinterval"))
print("expected: intervals within 0 and 1; some width for 20 slides")
found = {"AUROC": mixed, "AUROC, classes apart": apart, "macro F1, all right": perfect}
for name, (value, (low, high)) in found.items():
    print(f"seen: {name} {value:.2f}, interval {low:.2f} to {high:.2f}")
assert mixed[1][1] > 1.0
assert apart[1][1] - apart[1][0] == 0.0
assert perfect[1][1] > 1.0
PYTHON
