#!/usr/bin/env bash
# The quadratic weights of cohen_kappa_score count the places of the grades that occur, not the grades: in a fold where
# grades 3 and 4 are missing, 2 and 5 are neighbours, and the kappa is another. This program weighs by the grade of the
# whole task.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import sklearn
from sklearn.metrics import cohen_kappa_score

truth = np.array([1, 1, 2, 2, 5, 5, 5, 1])
predicted = np.array([1, 2, 2, 5, 5, 5, 2, 1])


def chance_corrected() -> float:
    """1 - observed / expected squared difference of the grades themselves."""
    observed = np.mean((truth - predicted) ** 2)
    return float(1 - observed / np.mean((truth[:, None] - predicted[None, :]) ** 2))


seen = cohen_kappa_score(truth, predicted, weights="quadratic")
named = cohen_kappa_score(truth, predicted, weights="quadratic", labels=[1, 2, 3, 4, 5])
right = chance_corrected()
print("scikit-learn", sklearn.__version__)
print(f"expected: {right:.4f}, from squared differences of the grades")
print(f"seen: {seen:.4f}; with labels=[1, 2, 3, 4, 5] {named:.4f}")
assert abs(named - right) < 1e-9
assert seen - right > 0.1
PYTHON
