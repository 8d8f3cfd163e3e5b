"""What a training step costs on this CPU with and without `quick_backward`: images a second, and their ratio.

    python benchmarks/tuning_speed.py              DeiT-Tiny's shape, 112 px, batch 64, one thread
    python benchmarks/tuning_speed.py --threads 2 --side 224

Weights are random: they do not change the time. The two ways take turns, and the median of the turns is told.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import timm
import torch
from torch.nn import functional as F

from pathotune.adapters import METHODS, configure
from pathotune.model import PathoTune
from pathotune.training.arithmetic import ON_CPU, quick_backward


def stepper(method: str, side: int, batch: int) -> tuple[PathoTune, Callable[[], None]]:
    """A model of a method, and a function that does one training step with it."""
    vit = timm.create_model("deit_tiny_patch16_224", num_classes=0, dynamic_img_size=True)
    config = configure(method, classes=("a", "b", "c", "d"))
    states = torch.randn(1, config.ttp_tokens, 384) if config.ttp else None
    model = PathoTune(config, vit, states).train()
    optimizer = torch.optim.RAdam(model.trained_parameters().values(), 1e-3)
    images, labels = torch.randn(batch, 3, side, side), torch.randint(0, 4, (batch,))

    def step() -> None:
        with ON_CPU.lowered():
            loss = F.cross_entropy(model(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, step


def seconds(step: Callable[[], None], steps: int) -> float:
    """Seconds for some steps."""
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - started


def main() -> None:
    """Measure each method and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int, default=112, help="pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| method | plain, images/s | quick, images/s | ratio |\n| --- | --- | --- | --- |")
    for method in METHODS:
        model, step = stepper(method, given.side, given.batch)
        found: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * (given.turns + 1)):
            quick = bool(turn % 2)
            with quick_backward(model, ON_CPU.place) if quick else contextlib.nullcontext():
                found[quick].append(seconds(step, 2))
        plain, quick_ = (statistics.median(found[way][1:]) for way in (False, True))  # the first turn warms up
        images = 2 * given.batch
        print(f"| {method} | {images / plain:.0f} | {images / quick_:.0f} | {plain / quick_:.2f} |", flush=True)


if __name__ == "__main__":
    main()
