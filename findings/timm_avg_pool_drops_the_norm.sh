#!/usr/bin/env bash
# A ViT that was trained with its class token and is opened with pretrained=True and global_pool="avg" gets no final
# normalisation: timm looks for it under another name, leaves the weights of the file out with a log message, and the new
# one is the identity. The model made first and asked for "avg" afterwards has it. This program pools by itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  timm==1.0.31 torch==2.15.0 torchvision==0.29.2 safetensors==0.8.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import timm
import torch
from safetensors.torch import save_file

NAME = "vit_tiny_patch16_224"
torch.manual_seed(0)
published = timm.create_model(NAME, num_classes=0).eval()
torch.nn.init.normal_(published.norm.weight)
torch.nn.init.normal_(published.norm.bias)
save_file(published.state_dict(), "weights.safetensors")
source = {"pretrained": True, "pretrained_cfg_overlay": {"file": "weights.safetensors"}, "num_classes": 0}
at_once = timm.create_model(NAME, global_pool="avg", **source).eval()
afterwards = timm.create_model(NAME, **source).eval()
afterwards.reset_classifier(0, "avg")
with torch.inference_mode():
    images = torch.randn(2, 3, 224, 224)
    mean = published.forward_features(images)[:, 1:].mean(1)
    wrong, right = at_once(images), afterwards(images)
cosine = float(torch.nn.functional.cosine_similarity(wrong, mean).mean())
print("timm", timm.__version__)
print("expected: the mean of the model's patch tokens, by either way")
print(f"seen: reset_classifier(0, 'avg') differs by {float((right - mean).abs().max()):.1e}; ", end="")
print(f"global_pool='avg' by {float((wrong - mean).abs().max()):.2f}, cosine {cosine:.2f}")
assert torch.allclose(right, mean, atol=1e-5)
assert cosine < 0.9
assert torch.equal(at_once.fc_norm.weight, torch.ones_like(at_once.fc_norm.weight))
PYTHON
