"""What waiting OpenMP threads and returned memory cost an encoder, alone and when other work wants the cores too.

    python benchmarks/thread_waiting.py [--model vit_small_patch16_224]

Encodes random patches with an untrained ViT on the CPU, in turn with OpenMP threads that spin while they wait
(`OMP_WAIT_POLICY=ACTIVE`), with libgomp's default, with threads that sleep (`PASSIVE`), and as the command line sets
it (`wsi_pipeline.system.machine`: they sleep after a short while, and freed memory is kept), while as many busy
processes as there are cores run beside it and while none does. Prints milliseconds a patch and ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

ROUNDS = 3
POLICIES = ("ACTIVE", "default", "PASSIVE", "ours")
_OURS = """
from wsi_pipeline.system.machine import prepare_process
prepare_process()
"""
_ENCODE = """
import time, numpy, torch, timm
model = timm.create_model("{model}", num_classes=0).eval()
batch = torch.rand(16, 3, 224, 224)
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
    model(batch)
    started = time.perf_counter()
    for _ in range(4):
        model(batch)
print((time.perf_counter() - started) / 64 * 1e3)
"""
_BUSY = "while True: sum(range(100000))"


def milliseconds(policy: str, model: str) -> float:
    """Milliseconds a patch in a fresh process under one waiting policy."""
    env = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if policy.isupper():
        env["OMP_WAIT_POLICY"] = policy
    code = (_OURS if policy == "ours" else "") + _ENCODE.format(model=model)
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return float(out.stdout)


def measure(busy: int, model: str) -> dict[str, float]:
    """Median milliseconds a patch by policy, with `busy` processes running beside it."""
    others = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(busy)]
    try:
        rounds = [{policy: milliseconds(policy, model) for policy in POLICIES} for _ in range(ROUNDS)]
    finally:
        for other in others:
            other.kill()
    return {policy: statistics.median(row[policy] for row in rounds) for policy in POLICIES}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    model = parser.parse_args().model
    cores = len(os.sched_getaffinity(0))
    print(f"{model}, {cores} cores, median of {ROUNDS}; ms a patch")
    print(f"{'beside it':<18}" + "".join(f"{policy:>9}" for policy in POLICIES) + f"{'PASSIVE / ours':>17}")
    for name, busy in (("nothing", 0), (f"{cores} busy processes", cores)):
        found = measure(busy, model)
        told = "".join(f"{found[policy]:>9.1f}" for policy in POLICIES)
        print(f"{name:<18}{told}{found['PASSIVE'] / found['ours']:>17.2f}", flush=True)


if __name__ == "__main__":
    main()
