#!/usr/bin/env bash
# Importing torchvision imports torch's compiler (torch._dynamo, and SymPy with it), though nothing is compiled: one line
# in ops/roi_align.py asks whether compiling is supported, next to a helper whose docstring says that it avoids just
# this. timm imports torchvision, so each short command with a timm network pays for it: on a busy laptop, seconds. This
# program imports torch, timm and torchvision only once it is clear that a slide has to be encoded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.15.0 torchvision==0.29.2
cd "$work"
cat > imports.py <<'PYTHON'
import os
import sys


def used() -> float:
    """Processor seconds of this process."""
    return sum(os.times()[:2])


start = used()
import torch

after_torch = used()
before = "torch._dynamo" in sys.modules
import torchvision

after_torchvision = used()
print(torch.__version__, torchvision.__version__, after_torch - start, after_torchvision - after_torch)
print(before, "torch._dynamo" in sys.modules, "sympy" in sys.modules)
PYTHON
"$work/venv/bin/python" imports.py > /dev/null  # compiles the modules
"$work/venv/bin/python" imports.py > seen.txt
"$work/venv/bin/python" - <<'PYTHON'
from pathlib import Path

first, second = Path("seen.txt").read_text().splitlines()
torch, torchvision, alone, added = first.split()
print("torch", torch, "torchvision", torchvision)
print("expected: torchvision imports no compiler until something is compiled")
print(f"seen: torch._dynamo and SymPy are imported; torchvision takes {float(added) / float(alone):.1f} times torch's own time")
assert second == "False True True"
assert float(added) > 0.4 * float(alone)
PYTHON
