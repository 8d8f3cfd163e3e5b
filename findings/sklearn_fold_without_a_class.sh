#!/usr/bin/env bash
# StratifiedGroupKFold balances rows, group by group, the most uneven ones first. Where patients differ in how many patches
# or slides they have, a fold may end up without the rare class though patients of it would go round: its AUROC is then
# not defined. This program compares several deals and says which class a part lacks.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import sklearn
from sklearn.model_selection import StratifiedGroupKFold

ROWS, POSITIVE = (1, 15, 3, 29, 15, 33), (0, 0, 1, 0, 12, 23)
labels = np.concatenate([[1] * p + [0] * (n - p) for n, p in zip(ROWS, POSITIVE)])
groups = np.repeat(np.arange(len(ROWS)), ROWS)
print("scikit-learn", sklearn.__version__)
print("six patients, three of them with positive rows, three folds; expected: positive rows in every fold")
found = [
    (sorted(set(groups[test].tolist())), int(labels[test].sum()))
    for _, test in StratifiedGroupKFold(3).split(labels, labels, groups)
]
for patients, positive in found:
    print(f"seen: patients {patients}, {positive} positive rows")
assert sorted(patient for patients, _ in found for patient in patients) == list(range(6))
assert min(positive for _, positive in found) == 0
PYTHON
