#!/usr/bin/env bash
# A class of which a fold has no slide counts as 0 in torchmetrics' macro AUROC and is left out of its macro F1. This
# program gives no AUROC for such a class and says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.15.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import warnings

import torch
import torchmetrics
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score

warnings.simplefilter("ignore")
label = torch.tensor([0, 0, 0, 1, 1, 1])  # no slide of the third class
scores = torch.nn.functional.one_hot(label, 3) * 0.8 + 0.1
auroc = float(MulticlassAUROC(3, average="macro")(scores, label))
each = MulticlassAUROC(3, average=None)(scores, label).tolist()
f1 = float(MulticlassF1Score(3, average="macro")(scores, label))
print("torchmetrics", torchmetrics.__version__)
print("expected: every slide is right, so macro AUROC and macro F1 are both 1, or neither can be said")
print(f"seen: macro AUROC {auroc:.4f} (classes {each}), macro F1 {f1:.4f}")
assert each == [1.0, 1.0, 0.0]
assert abs(auroc - 2 / 3) < 1e-6
assert f1 == 1.0
PYTHON
