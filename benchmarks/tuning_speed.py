"""What a training step costs on this CPU: processor time of each method, with and without `quick_backward`.

    python benchmarks/tuning_speed.py              DeiT-Tiny's shape, 112 px, batch 64, one thread
    python benchmarks/tuning_speed.py --threads 2 --side 224

Weights are random: they do not change the time. Methods and ways take turns, and the median of the turns is told.
Processor seconds are measured, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import timm
import torch
from torch.nn import functional as F

from pathotune.adapters import METHODS, configure
from pathotune.model import PathoTune
from pathotune.training.arithmetic import ON_CPU, quick_backward


def stepper(method: str, side: int, batch: int, **fields: float) -> tuple[PathoTune, Callable[[], None]]:
    """A model of a method, and a function that does one training step with it."""
    vit = timm.create_model("deit_tiny_patch16_224", num_classes=0, dynamic_img_size=True)
    config = configure(method, classes=("a", "b", "c", "d"), **fields)
    states = torch.randn(1, config.ttp_tokens, 384) if config.ttp else None
    model = PathoTune(config, vit, states).train()
    optimizer = torch.optim.AdamW(model.trained_parameters().values(), 1e-3)
    images, labels = torch.randn(batch, 3, side, side), torch.randint(0, 4, (batch,))

    def step() -> None:
        with ON_CPU.lowered():
            loss = F.cross_entropy(model(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, step


def seconds(step: Callable[[], None], steps: int) -> float:
    """Processor seconds for some steps."""
    started = time.process_time()
    for _ in range(steps):
        step()
    return time.process_time() - started


CASES: Mapping[str, tuple[str, dict[str, float]]] = {
    **{method: (method, {}) for method in METHODS},
    "pathotune, entry 0.33": ("pathotune", {"entry": 0.33}),
    "pathotune, entry 0.5": ("pathotune", {"entry": 0.5}),
}


def main() -> None:
    """Measure each method and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int, default=112, help="pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[tuple[str, bool], list[float]] = {}
    steppers = {name: stepper(method, given.side, given.batch, **more) for name, (method, more) in CASES.items()}
    for turn in range(given.turns + 1):
        for name, (model, step) in steppers.items():
            for quick in (False, True):
                with quick_backward(model, ON_CPU.place) if quick else contextlib.nullcontext():
                    taken = seconds(step, 1)
                if turn:  # the first turn warms up
                    found.setdefault((name, quick), []).append(taken)
    middle = {key: statistics.median(values) for key, values in found.items()}
    print("| method | plain, images/s | quick, images/s | time, of full's |\n| --- | --- | --- | --- |")
    for name in CASES:
        plain, quick_ = middle[name, False], middle[name, True]
        share = quick_ / middle["full", True]
        print(f"| {name} | {given.batch / plain:.0f} | {given.batch / quick_:.0f} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
