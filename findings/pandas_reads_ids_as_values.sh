#!/usr/bin/env bash
# pandas guesses what the cells of a column are. Ids of slides and patients come out changed, or as missing values, unless
# dtype=str and keep_default_na=False are given. This program reads manifests as text.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pandas==3.1.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import io

import pandas

TABLE = "slide_id,patient_id\nNA,1E5\nNone,012\nnull,2E3\n7,3\n"
print("pandas", pandas.__version__)
guessed = pandas.read_csv(io.StringIO(TABLE))
asked = pandas.read_csv(io.StringIO(TABLE), dtype=str, keep_default_na=False)
print("expected:", asked["slide_id"].tolist(), asked["patient_id"].tolist())
print("seen:    ", guessed["slide_id"].tolist(), guessed["patient_id"].tolist())
assert asked["slide_id"].tolist() == ["NA", "None", "null", "7"]
assert guessed["slide_id"].isna().tolist() == [True, True, True, False]
assert guessed["patient_id"].tolist() == [100000.0, 12.0, 2000.0, 3.0]
PYTHON
