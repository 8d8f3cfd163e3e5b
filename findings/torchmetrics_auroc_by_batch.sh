#!/usr/bin/env bash
# torchmetrics looks at each batch of scores by itself: has it a value outside 0 to 1, the batch goes through a sigmoid,
# else it stays. Slide-level models are often validated one slide at a time on logits, so some slides are transformed
# and others not, and the AUROC of the same scores depends on the batches. This program ranks all scores at once.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.15.0 scikit-learn==1.9.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
import torchmetrics
from sklearn.metrics import roc_auc_score
from torchmetrics.classification import BinaryAUROC

torch.manual_seed(0)
logits = torch.randn(400)
label = (torch.randn(400) + logits > 0).long()
whole = float(BinaryAUROC()(logits, label))
single = BinaryAUROC()
for score, target in zip(logits, label, strict=True):
    single.update(score[None], target[None])
single_value, right = float(single.compute()), float(roc_auc_score(label, logits))
print("torchmetrics", torchmetrics.__version__)
print(f"expected: {right:.4f} however the 400 logits are batched")
print(f"seen: {whole:.4f} in one batch, {single_value:.4f} in 400 batches of one")

large, classes = torch.tensor([18.0, 20.0, 25.0, 30.0]), torch.tensor([0, 0, 1, 1])
saturated = float(BinaryAUROC()(large, classes))
print(f"and logits of 18 to 30 in perfect order: {saturated:.2f} (the sigmoid of each is 1 in float32)")
assert abs(whole - right) < 1e-3
assert single_value < right - 0.03
assert saturated == 0.5
PYTHON
