#!/usr/bin/env bash
# On a CPU without bf16 instructions (AVX2 alone: most laptops, many servers) torch multiplies bf16 and float16 matrices
# all the same, without a warning, by loops of its own. How slow they are depends on how the matrices lie in memory: for
# two plain row-major matrices the product takes tens of times as long as in float32, with the first one transposed a few
# times. So a backward pass is hit harder than a forward pass, and a quick test of the forward pass does not show it:
# tuning a small ViT took twenty times as long as in float32. This program takes bf16 only where the CPU is fast at it.
# The script switches oneDNN off, which is what torch does by itself on such a CPU, so that it shows the same anywhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.15.0 numpy
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import time
from collections.abc import Callable

import torch

torch.set_num_threads(1)
one, other = torch.randn(512, 512), torch.randn(512, 512)
low, lower = one.bfloat16(), other.bfloat16()


def seconds(product: Callable[[], torch.Tensor]) -> float:
    """Processor seconds, the least of three after a first call."""
    product()
    found = []
    for _ in range(3):
        started = time.process_time()
        product()
        found.append(time.process_time() - started)
    return min(found)


with torch.backends.mkldnn.flags(enabled=False):
    full = seconds(lambda: one @ other)
    plain, transposed = seconds(lambda: low @ lower), seconds(lambda: low.T @ lower)
print("torch", torch.__version__, "with bf16 instructions:", torch.ops.mkldnn._is_mkldnn_bf16_supported())
print("expected: half the bytes take at most about the time of float32, in any layout")
print(f"seen: A @ B takes {plain / full:.0f} times float32's time, A.T @ B {transposed / full:.1f} times")
assert plain > 8 * full
assert plain > 3 * transposed
PYTHON
