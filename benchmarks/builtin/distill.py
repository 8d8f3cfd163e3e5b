"""Make vit-mini: a ViT of 6 blocks taught by DeiT-Tiny's 12 to give the same tokens on tissue.

python benchmarks/builtin/distill.py --work /tmp/vit-mini          about 20 minutes on a core with AMX that is free
python benchmarks/builtin/distill.py --work /tmp/vit-mini --install    and put the weights into the package

Begun again, it goes on from the last checkpoint in --work. Needs the slides and weights of WSI_PIPELINE_DATA.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from corpus import HELD_OUT, TRAINING, Corpus, data_folder, open_corpus
from crops import centre_crops, draw_crops
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from students import (
    Network,
    Scale,
    agreement,
    distance,
    first_student,
    hidden_states,
    open_teacher,
    save_weights,
)
from torch import Tensor

from pathotune.backbone import open_backbone
from pathotune.builtin import VIT_MINI, vit_mini_path
from pathotune.training.arithmetic import ON_CPU

TEACHER_WEIGHTS = "weights/deit_tiny_patch16_224.fp16.safetensors"
SYNTHETIC_PART = 0.2
STAGES = ((112, 64), (224, 16))
"""Image side and images per step of each stage: most is learnt on small images, which cost a quarter."""
SAVE_EVERY = 100


def main() -> None:
    """Make or open the corpus, train what is left to train, print and store how far the student agrees."""
    given = _options()
    torch.set_num_threads(given.threads)
    corpus = open_corpus(given.work)
    teacher = open_teacher(data_folder() / TEACHER_WEIGHTS)
    begin = given.work / "begin.safetensors"
    save_file(first_student(teacher), begin)
    student = open_backbone(VIT_MINI, begin)[0].requires_grad_(True)
    before = report("before", student, teacher, corpus)
    seconds = train(student, teacher, corpus, given.steps, given.rate, given.work)
    save_weights(given.work / "vit-mini.safetensors", student)
    student = open_backbone(VIT_MINI, given.work / "vit-mini.safetensors")[0]
    after = report("after", student, teacher, corpus)
    facts = {"steps": given.steps, "rate": given.rate, "seconds": seconds, "before": before, "after": after}
    (given.work / "distill.json").write_text(json.dumps(facts, indent=1) + "\n")
    if given.install:
        save_weights(vit_mini_path(), student)
        print(f"written: {vit_mini_path()} ({vit_mini_path().stat().st_size / 1e6:.2f} MB)")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, required=True, help="folder for corpus and checkpoints")
    options.add_argument("--steps", type=int, nargs=2, default=(1900, 400), help="steps at 112 px and at 224 px")
    options.add_argument("--rate", type=float, default=5e-4, help="highest learning rate")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--install", action="store_true", help="put the weights into the package")
    return options.parse_args()


def report(when: str, student: Network, teacher: Network, corpus: Corpus) -> dict[str, dict[str, float]]:
    """Agreement on tissue that was held out, whole squares and their middles at full resolution; printed."""
    found = {}
    for kind, synthetic in (("TCGA slide", False), ("synthetic", True)):
        rows = corpus.where(HELD_OUT, synthetic=synthetic)
        for scale in (1, 2):
            batches = [centre_crops(corpus.pixels, part, 224, scale) for part in np.array_split(rows, 4)]
            name = f"{kind}, 224 px, {scale}x"
            found[name] = {**agreement(student, teacher, batches), "n": len(rows)}
            print(when, name, {key: round(value, 4) for key, value in found[name].items()}, flush=True)
    return found


def train(student: Network, teacher: Network, corpus: Corpus, steps: tuple[int, int], rate: float, work: Path) -> float:
    """Run the stages one after the other with one warm-up and one cosine; returns seconds, those before a break too."""
    for block in student.blocks:
        block.attn.fused_attn = False  # the fused backward pass is slow on processors
    decayed = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    scales = _scales(teacher, corpus)
    step, seconds = _resume(student, optimiser, work)
    losses: list[float] = []
    while step < sum(steps):
        began = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = rate * _schedule(step, sum(steps))
        side, batch = STAGES[0] if step < steps[0] else STAGES[1]
        images = draw_crops(corpus.pixels, _rows(corpus, batch, step), side, np.random.default_rng([7, step]))
        losses.append(_step(student, teacher, images, scales, optimiser))
        step, seconds = step + 1, seconds + time.perf_counter() - began
        if step % SAVE_EVERY == 0 or step == sum(steps):
            print(f"step {step}  loss {np.mean(losses):.4f}  {seconds:.0f} s", flush=True)
            losses.clear()
            _checkpoint(student, optimiser, step, seconds, work)
    for block in student.blocks:
        block.attn.fused_attn = True
    return seconds


def _rows(corpus: Corpus, batch: int, step: int) -> NDArray[np.int64]:
    """Rows of one step: every slide's squares alike, but for synthetic ones, which are a fixed part."""
    rng = np.random.default_rng([11, step])
    synthetic = round(batch * SYNTHETIC_PART)
    real = rng.choice(corpus.where(TRAINING, synthetic=False), batch - synthetic)
    return np.concatenate([real, rng.choice(corpus.where(TRAINING, synthetic=True), synthetic)])


def _schedule(step: int, total: int, warmup: int = 100) -> float:
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / total))


def _scales(teacher: Network, corpus: Corpus) -> list[Scale]:
    """One for the teacher's state that each student block answers to, and one for the final tokens."""
    images = draw_crops(corpus.pixels, _rows(corpus, 256, 0), 112, np.random.default_rng(3))
    with torch.inference_mode():
        states = hidden_states(teacher, images)
    return [Scale(state) for state in (*states[1:-1:2], states[-1])]


def _step(
    student: Network, teacher: Network, images: Tensor, scales: list[Scale], optimiser: torch.optim.Optimizer
) -> float:
    with ON_CPU.lowered():
        with torch.no_grad():
            wanted = hidden_states(teacher, images)
        given = hidden_states(student, images)
    loss = distance(given, wanted, scales)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _checkpoint(student: Network, optimiser: torch.optim.Optimizer, step: int, seconds: float, work: Path) -> None:
    tensors = {f"weights.{name}": tensor.detach() for name, tensor in student.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"state.{number}.{name}": tensor for name, tensor in state.items()}
    beside = work / "checkpoint.tmp"
    save_file(tensors, beside, metadata={"progress": json.dumps({"step": step, "seconds": seconds})})
    beside.replace(work / "checkpoint.safetensors")


def _resume(student: Network, optimiser: torch.optim.Optimizer, work: Path) -> tuple[int, float]:
    path = work / "checkpoint.safetensors"
    if not path.is_file():
        return 0, 0.0
    tensors, state = load_file(path), optimiser.state_dict()
    student.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
    for name, tensor in tensors.items():
        if name.startswith("state."):
            _, number, key = name.split(".")
            state["state"].setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict(state)
    with safe_open(path, "pt") as file:
        progress = json.loads(file.metadata()["progress"])
    return int(progress["step"]), float(progress["seconds"])


if __name__ == "__main__":
    main()
