#!/usr/bin/env bash
# scipy.stats.logrank gives a standard normal statistic whose sign is the order of its arguments; survival papers and
# lifelines print its square, chi-square with one degree of freedom. This program reports chi-square.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check scipy==1.17.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import scipy
from scipy.stats import CensoredData, chi2, logrank

first = CensoredData(uncensored=[1, 2, 3, 4, 5], right=[9])
second = CensoredData(uncensored=[4, 6, 8, 10], right=[12, 12])
print("SciPy", scipy.__version__)
one, other = logrank(first, second), logrank(second, first)
squared = chi2.sf(one.statistic**2, 1)
print("expected: chi-square, which is never negative")
print(f"seen: {one.statistic:.4f} and, with the samples exchanged, {other.statistic:.4f}; p {one.pvalue:.4f} both times")
print(f"p of its square as chi-square with 1 degree of freedom: {squared:.4f}")
assert other.statistic < 0 < one.statistic
assert abs(one.statistic + other.statistic) < 1e-12
assert abs(squared - one.pvalue) < 1e-12
PYTHON
