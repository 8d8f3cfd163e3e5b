"""Training of a candidate on one split, with what is frozen computed once for all candidates of the split."""

from __future__ import annotations

import math
import time
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from benchmarks.tuning.data import Part, classes_of, split
from benchmarks.tuning.explore.candidate import Candidate, Spec
from benchmarks.tuning.job import BACKBONE, WEIGHTS
from pathotune.adapters import configure
from pathotune.backbone import open_backbone
from pathotune.config import TaskText
from pathotune.text import text_states
from pathotune.training.arithmetic import ON_CPU
from pathotune.training.batches import _read, normalise
from pathotune.training.loop import schedule

SIZES = (2000, 2000, 2000)
INPUT_PX = 112
TEXT = {
    "crc": TaskText("H&E", "human colon", "nucleus classification"),
    "ucsb": TaskText("H&E", "human breast", "tumour classification"),
}
RATES = {
    "tokens": 1e-2,
    "net": 2e-3,
    "text": 2e-4,
    "gate": 1e-2,
    "head": 2e-3,
    "lora": 2e-3,
    "norms": 1e-3,
    "full": 2e-4,
}


@cache
def _states(name: str) -> Tensor:
    return text_states(configure("pathotune", classes=classes_of(name), tasks=(TEXT[name],)))


class Data:
    """Images of one split, and their tokens below the entry layer for each symmetry of the square (bf16)."""

    def __init__(self, name: str, seed: int, sizes: tuple[int, int, int] = SIZES) -> None:
        self.name, self.seed = name, seed
        self.card = open_backbone(BACKBONE, WEIGHTS, input_px=INPUT_PX)[1]
        train, val, test = split(name, seed, sizes)
        self.parts = {"train": train, "val": val, "test": test}
        self.images = {key: self._pixels(part) for key, part in self.parts.items() if key != "test"}
        self.labels = {key: torch.from_numpy(part.data.labels) for key, part in self.parts.items()}
        self._kept: dict[tuple[str, int], Tensor] = {}
        self._entry = -1

    def _pixels(self, part: Part) -> Tensor:
        rows = np.arange(len(part.data.labels))
        return torch.cat([_read(part.data, rows[i : i + 256], self.card) for i in range(0, len(rows), 256)])

    def tokens(self, model: Candidate, key: str, rows: Tensor, ways: Tensor) -> Tensor:
        """Sequence at the entry layer for images `rows`, each turned by its way (0 to 7)."""
        entry = model.spec.entry
        if model.spec.full or entry == 0:
            return model.lower(self._turned(key, rows, ways))
        if entry != self._entry:
            self._kept, self._entry = {}, entry
        out = None
        for way in ways.unique().tolist():
            if (key, way) not in self._kept:
                self._kept[key, way] = self._all(model, key, way)
            here = torch.nonzero(ways == way).squeeze(1)
            found = self._kept[key, way][rows[here]]
            out = found.new_empty(len(rows), *found.shape[1:]) if out is None else out
            out[here] = found
        assert out is not None
        return out.float()

    def _all(self, model: Candidate, key: str, way: int) -> Tensor:
        found = []
        for block in model.vit.blocks:
            block.attn.fused_attn = True
        for first in range(0, len(self.images[key]), 64):
            rows = torch.arange(first, min(first + 64, len(self.images[key])))
            found.append(model.lower(self._turned(key, rows, torch.full((len(rows),), way))).bfloat16())
        for block in model.vit.blocks:
            block.attn.fused_attn = False
        return torch.cat(found)

    def _turned(self, key: str, rows: Tensor, ways: Tensor) -> Tensor:
        images = self.images[key][rows]
        out = torch.empty_like(images)
        for way in ways.unique().tolist():
            here = torch.nonzero(ways == way).squeeze(1)
            part = images[here].flip(3) if way // 4 else images[here]
            out[here] = torch.rot90(part, way % 4, (2, 3))
        return normalise(out.float(), self.card)


def groups_of(model: Candidate, spec: Spec) -> list[dict[str, Any]]:
    """Parameter groups with their rates and decays."""
    found: dict[tuple[float, float], list[Tensor]] = {}
    rates = {**RATES, **spec.rates}
    for name, value in model.trained().items():
        kind, decay = "net", spec.weight_decay
        if name.startswith("head"):
            kind = "head"
        elif name.startswith("project"):
            kind = "text"
        elif name.startswith("tvp_out"):
            kind = "net"
        elif name.startswith(("tvp", "ivp_start", "base")) or name.endswith((".start", ".scale")):
            kind, decay = "tokens", 0.0
        elif name.startswith("gate"):
            kind, decay = "gate", 0.0
        elif name.endswith(("qkv.a", "qkv.b")):
            kind = "lora"
        elif name.startswith("vit."):
            kind = "full"
        if value.ndim < 2:
            decay = 0.0
        rate = rates[kind]
        if spec.full and name.startswith("vit."):
            layer = int(name.split(".")[2]) + 1 if ".blocks." in name else 13 if ".norm." in name else 0
            rate *= spec.decay ** (13 - layer)
        found.setdefault((rate, decay), []).append(value)
    return [{"params": p, "rate": r, "weight_decay": d} for (r, d), p in found.items()]


def train(spec: Spec, data: Data) -> dict[str, Any]:
    """Train a candidate; returns validation scores after each epoch, its cost and its share."""
    seed = data.seed
    torch.manual_seed(seed)
    vit, _ = open_backbone(BACKBONE, WEIGHTS, input_px=INPUT_PX)
    total = sum(v.numel() for n, v in vit.named_parameters() if not n.startswith("head."))
    model = Candidate(vit, spec, len(classes_of(data.name)), _states(data.name))
    labels, count = data.labels["train"], len(data.labels["train"])
    weights = count / (model.head.out_features * torch.bincount(labels, minlength=model.head.out_features).float())
    generator = torch.Generator().manual_seed(seed)
    autocast = ON_CPU.lowered()
    if spec.start == "tokens":
        with torch.no_grad(), autocast:
            rows = torch.randperm(count, generator=generator)[:64]
            model.prototypes(data.tokens(model, "train", rows, torch.zeros(64, dtype=torch.long)), generator)
    groups = groups_of(model, spec)
    kind = {"adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}[spec.optimizer]
    more = {"decoupled_weight_decay": True} if spec.optimizer == "radam" else {}
    optimizer = kind(groups, lr=1e-3, **more)
    average = {n: v.detach().clone() for n, v in model.trained().items()} if spec.ema else {}
    steps = math.ceil(count / spec.batch)
    cpu, history, step = 0.0, [], 0
    for epoch in range(spec.epochs):
        model.train()
        vit.eval()
        order, loss_sum = torch.randperm(count, generator=generator), 0.0
        ways = torch.randint(8, (count,), generator=generator)
        for first in range(0, count, spec.batch):
            rows = order[first : first + spec.batch]
            with autocast:
                sequence = data.tokens(model, "train", rows, ways[rows])
                began = time.process_time()
                logits = model(sequence).float()
            loss = F.cross_entropy(logits, labels[rows], weights)
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * schedule(step, spec.epochs * steps, spec.warmup)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
            optimizer.step()
            step += 1
            if average:
                keep = min(spec.ema, step / (step + 10))
                for name, value in model.trained().items():
                    average[name].lerp_(value.detach(), 1 - keep)
            cpu += time.process_time() - began
            loss_sum += loss.item() * len(rows)
        if epoch == spec.epochs - 1:
            history.append({"epoch": epoch + 1, "loss": loss_sum / count, **_judge(model, data, average, weights)})
    share = sum(v.numel() for v in model.trained().values()) / total
    found = {"history": history, "share": share, "cpu_per_epoch": cpu / spec.epochs}
    if spec.vrm and spec.ivp and not spec.free:
        found["rolled"] = _judge(model, data, average, weights, roll=True)
    return found


def _judge(
    model: Candidate, data: Data, average: dict[str, Tensor], weights: Tensor, roll: bool = False
) -> dict[str, float]:
    """Scores on the validation images, with the averaged weights where there are any."""
    kept = {n: v.detach().clone() for n, v in model.trained().items()} if average else {}
    for name, value in average.items():
        model.trained()[name].data.copy_(value)
    model.eval()
    labels, found = data.labels["val"], []
    for first in range(0, len(labels), 100):
        rows = torch.arange(first, min(first + 100, len(labels)))
        with torch.no_grad(), ON_CPU.lowered():
            sequence = data.tokens(model, "val", rows, torch.zeros(len(rows), dtype=torch.long))
            found.append(model(sequence, roll).float())
    for name, value in kept.items():
        model.trained()[name].data.copy_(value)
    logits = torch.cat(found)
    chances, y = logits.softmax(1).numpy(), labels.numpy()
    f1 = f1_score(y, chances.argmax(1), average="macro", labels=np.unique(y), zero_division=0)
    auroc = np.mean([roc_auc_score(y == k, chances[:, k]) for k in np.unique(y)])
    loss = F.cross_entropy(logits, labels, weights).item()
    accuracy = float((chances.argmax(1) == y).mean())
    return {"val_f1": float(f1), "val_auroc": float(auroc), "val_loss": loss, "val_acc": accuracy}
