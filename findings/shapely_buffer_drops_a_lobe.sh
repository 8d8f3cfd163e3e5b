#!/usr/bin/env bash
# buffer(0) is the customary way to mend outlines that cross themselves, as freehand annotations do. It keeps the part
# that winds one way round and drops the other; make_valid keeps both. This program uses make_valid.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check shapely==2.2.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import shapely
from shapely import Polygon, make_valid

bow_tie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
buffered, valid = bow_tie.buffer(0).area, make_valid(bow_tie).area
print("Shapely", shapely.__version__, "GEOS", shapely.geos_version_string)
print("a bow tie of two triangles of area 25 each; expected: 50")
print(f"seen: buffer(0) {buffered:g}, make_valid {valid:g}")
assert (buffered, valid) == (25.0, 50.0)
PYTHON
