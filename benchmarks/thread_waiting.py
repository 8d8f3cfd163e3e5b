"""What spinning OpenMP threads cost an encoder when other work wants the cores too.

    python benchmarks/thread_waiting.py

Encodes random patches with an untrained DeiT-Tiny on the CPU, in turn with OpenMP threads that spin while they wait
(`OMP_WAIT_POLICY=ACTIVE`), with libgomp's default, and with threads that sleep (`PASSIVE`, what the command line
sets), while as many busy processes as there are cores run beside it and while none does. Prints milliseconds a patch
and ratios.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

ROUNDS = 3
POLICIES = ("ACTIVE", "", "PASSIVE")
_ENCODE = """
import time, numpy, torch, timm
model = timm.create_model("deit_tiny_patch16_224", num_classes=0).eval()
batch = torch.rand(16, 3, 224, 224)
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
    model(batch)
    started = time.perf_counter()
    for _ in range(4):
        model(batch)
print((time.perf_counter() - started) / 64 * 1e3)
"""
_BUSY = "while True: sum(range(100000))"


def milliseconds(policy: str) -> float:
    """Milliseconds a patch in a fresh process under one waiting policy."""
    env = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if policy:
        env["OMP_WAIT_POLICY"] = policy
    out = subprocess.run([sys.executable, "-c", _ENCODE], env=env, capture_output=True, text=True, check=True)
    return float(out.stdout)


def measure(busy: int) -> dict[str, float]:
    """Median milliseconds a patch by policy, with `busy` processes running beside it."""
    others = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(busy)]
    try:
        rounds = [{policy: milliseconds(policy) for policy in POLICIES} for _ in range(ROUNDS)]
    finally:
        for other in others:
            other.kill()
    return {policy: statistics.median(row[policy] for row in rounds) for policy in POLICIES}


def main() -> None:
    """Print the table."""
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, median of {ROUNDS}; ms a patch")
    print(f"{'beside it':<18}{'ACTIVE':>8}{'default':>9}{'PASSIVE':>9}{'default / PASSIVE':>20}")
    for name, busy in (("nothing", 0), (f"{cores} busy processes", cores)):
        found = measure(busy)
        ratio = found[""] / found["PASSIVE"]
        print(f"{name:<18}{found['ACTIVE']:>8.1f}{found['']:>9.1f}{found['PASSIVE']:>9.1f}{ratio:>20.1f}")


if __name__ == "__main__":
    main()
