"""Teacher and student of the distillation: opened, compared token by token, and scored on tissue held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from pathotune.backbone import BUILT_IN, open_backbone

TEACHER, _SHAPE = BUILT_IN["vit-mini"]
DEPTH = _SHAPE["depth"]
Network = Any


def open_teacher(weights: Path) -> Network:
    """DeiT-Tiny, frozen."""
    return open_backbone(TEACHER, weights)[0].requires_grad_(False)


def first_student(teacher: Network) -> dict[str, Tensor]:
    """What the student begins with: the teacher's embedding, norm, every second block and the last."""
    step = len(teacher.blocks) // DEPTH
    taken = {step * number: number for number in range(DEPTH - 1)} | {len(teacher.blocks) - 1: DEPTH - 1}
    found = {}
    for name, tensor in teacher.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            if int(parts[1]) not in taken:
                continue
            parts[1] = str(taken[int(parts[1])])
        found[".".join(parts)] = tensor.clone()
    return found


def save_weights(path: Path, student: Network) -> None:
    """Half precision, as in the package. The file appears whole or not at all."""
    half = {name: tensor.detach().half().contiguous() for name, tensor in student.state_dict().items()}
    beside = path.with_suffix(".tmp")
    save_file(half, beside)
    beside.chmod(0o644)
    beside.replace(path)


def hidden_states(network: Network, images: Tensor) -> list[Tensor]:
    """Tokens (B, 1 + N, C) after every block, then after the last norm."""
    tokens = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(images))))
    found = []
    for block in network.blocks:
        tokens = block(tokens)
        found.append(tokens)
    return [*found, network.norm(tokens)]


class Scale:
    """Mean and deviation of each channel of the teacher's tokens, for [CLS] and patches apart: what counts as far."""

    def __init__(self, states: Tensor) -> None:
        parts = (states[:, :1], states[:, 1:])
        self.mean = [part.float().mean((0, 1)) for part in parts]
        self.std = [part.float().std((0, 1)) + 1e-3 for part in parts]

    def __call__(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """[CLS] and patch tokens, each channel with mean 0 and deviation 1 where the teacher made them."""
        parts = (states[:, :1].float(), states[:, 1:].float())
        first, second = ((part - m) / s for part, m, s in zip(parts, self.mean, self.std, strict=True))
        return first, second


def distance(student: list[Tensor], teacher: list[Tensor], scales: list[Scale]) -> Tensor:
    """What is minimised: final tokens first, and in a smaller part those in between (after every second block).

    Final tokens: smooth L1 of standardised channels, and 1 - cosine of the same; [CLS] and patches weigh alike.
    """
    last = [_final(a, b) for a, b in zip(scales[-1](student[-1]), scales[-1](teacher[-1]), strict=True)]
    between = []
    step = (len(teacher) - 1) // (len(student) - 1)
    for number in range(len(student) - 2):
        scale = scales[number]
        pairs = zip(scale(student[number]), scale(teacher[step * number + step - 1]), strict=True)
        between += [F.smooth_l1_loss(a, b) for a, b in pairs]
    return last[0] + last[1] + INNER * torch.stack(between).mean()


INNER = 0.5


def _final(student: Tensor, teacher: Tensor) -> Tensor:
    return F.smooth_l1_loss(student, teacher) + 1 - F.cosine_similarity(student, teacher, dim=-1).mean()


@torch.inference_mode()
def agreement(student: Network, teacher: Network, batches: list[Tensor]) -> Mapping[str, float]:
    """Mean cosine of the student's final tokens to the teacher's: [CLS], [CLS] less the teacher's mean, patches."""
    pairs = [(student.forward_features(images), teacher.forward_features(images)) for images in batches]
    ours, theirs = (torch.cat(parts).float() for parts in zip(*pairs, strict=True))
    mean = theirs[:, 0].mean(0)
    return {
        "cls": float(F.cosine_similarity(ours[:, 0], theirs[:, 0]).mean()),
        "cls_centred": float(F.cosine_similarity(ours[:, 0] - mean, theirs[:, 0] - mean).mean()),
        "patches": float(F.cosine_similarity(ours[:, 1:], theirs[:, 1:], dim=-1).mean()),
    }
