#!/usr/bin/env bash
# DeLong's test of two models that order the slides alike: nothing tells them apart, and no test should say that they
# differ. MLstatkit gives z = 0 and p = 0, the strongest verdict there is: without a variance it falls back on a
# bootstrap whose every difference is 0, and the share of resamples beyond the observed difference is then 0. The same
# happens to a score and its logit, or a probability and its recalibration, which have one ROC curve. `compare` of this
# program gives a difference of 0 and no p-value there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check MLstatkit==0.1.91
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from MLstatkit import Delong_test

rng = np.random.default_rng(0)
label = np.repeat([0, 1], 30)
score = np.clip(rng.random(60) * 0.7 + label * 0.25, 0.01, 0.99)
logit = np.log(score / (1 - score))
other = np.clip(score + rng.normal(0, 0.02, 60), 0.01, 0.99)


def tested(second: np.ndarray) -> tuple[float, float]:
    z, p, *_ = Delong_test(label, score, second, random_state=0)
    return float(z), float(p)


print("MLstatkit", version("MLstatkit"))
print("expected: p = 1, or no p-value, for a score and its logit: one order, one ROC curve")
same, near = tested(logit), tested(other)
print(f"seen: z = {same[0]:g}, p = {same[1]:g}; of a score and nearly the same z = {near[0]:.2f}, p = {near[1]:.2f}")
assert same == (0.0, 0.0)
assert near[1] > 0.05
PYTHON
