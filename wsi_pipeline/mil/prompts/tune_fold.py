"""Tune prompts and a slide-level head together on the training slides of one fold, from their labels alone.

Two passes. Attention over all stored features comes from a slide-level model trained on the same part of the fold; it
ranks the patches of each slide. Then the patches with most attention and some drawn at random pass the network with its
prompts, and the head; the loss of the slide's label is propagated back to the prompts. To bound the memory, features
are first computed without gradients, the loss gives the gradient of each feature, and patches pass the network again,
CHUNK at a time, with that gradient (as in Gao et al. 2021, arXiv 2101.06983).

Training and validation slides are all that a fold's tuning is given.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathotune.model import PathoTune
from pathotune.training.arithmetic import quick_backward
from pathotune.training.augment import turn
from pathotune.training.batches import normalise
from pathotune.training.loop import schedule
from pathotune.training.optimizer import make_optimizer
from pathotune.training.trainstate import EpochRow, Progress, restore, store
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.models.mil_model import build_model
from wsi_pipeline.mil.prompts.prompt_inputs import CHUNK, PromptInputs, chosen_rows, offsets_of
from wsi_pipeline.mil.trained.inference import attention
from wsi_pipeline.mil.training.fit import fit
from wsi_pipeline.mil.training.objectives import Objective
from wsi_pipeline.mil.training.seeding import seeded, sub_seed
from wsi_pipeline.mil.training.training_run import FoldRows

_CALIBRATION = 128
_WARMUP, _CLIP, _NETWORK_RATE = 0.1, 1.0, 0.3


def tune_fold(inputs: PromptInputs, objective: Objective, fold: FoldRows, folder: Path) -> PathoTune:
    """The model with tuned prompts, in eval mode: those of the epoch with the lowest loss on the validation slides.

    Without validation slides the last epoch is kept. `folder` holds the state after each epoch; after an interruption
    tuning continues there, with the same result. Raises MilError if a loss is not finite.
    """
    tuner = _Tuner(inputs, objective, fold)
    key = _key(inputs, fold)
    progress = restore(folder, tuner.joint, tuner.optimizer, key)
    if progress is None:
        progress = Progress()
        tuner.prepare()
    while len(progress.history) < inputs.prompts.prompt_epochs:
        started, epoch = time.perf_counter(), len(progress.history) + 1
        train_loss = tuner.epoch(epoch)
        val_loss = tuner.val_loss()
        judged = train_loss if val_loss is None else val_loss
        row = EpochRow(epoch, train_loss, judged, 0.0, 0.0, tuner.rate(epoch), time.perf_counter() - started)
        progress.history.append(row)
        if val_loss is None or not progress.best_epoch or judged < progress.history[progress.best_epoch - 1].val_loss:
            progress.best_epoch = epoch
            progress.best = {name: value.detach().cpu().clone() for name, value in tuner.trained().items()}
        store(folder, tuner.joint, tuner.optimizer, progress, tuner.state(), key)
        shown = "" if val_loss is None else f", validation loss {val_loss:.3f}"
        inputs.on_line(f"prompts, epoch {epoch}/{inputs.prompts.prompt_epochs}: training loss {train_loss:.3f}{shown}")
    trained = tuner.trained()
    for name, value in progress.best.items():
        trained[name].data.copy_(value)
    return tuner.model.eval()


class _Tuner:
    """Prompts and head of one fold with their optimiser."""

    def __init__(self, inputs: PromptInputs, objective: Objective, fold: FoldRows) -> None:
        self.inputs, self.objective, self.fold = inputs, objective, fold
        place, prompts = inputs.compute.place, inputs.prompts
        self.ranked = _ranked(inputs, objective, fold)
        with seeded(sub_seed(fold.seed, 10), place):
            self.model = inputs.model().to(place)
            self.head = build_model(inputs.spec, self.model.feature_dim, objective.n_outputs).to(place)
        self.joint = nn.ModuleDict({"prompts": self.model, "head": self.head})
        self.optimizer = make_optimizer(self.model, "adamw", prompts.prompt_rate, _NETWORK_RATE, 1e-2)
        share = inputs.spec.learning_rate / prompts.prompt_rate
        own = {"params": list(self.head.parameters()), "weight_decay": inputs.spec.weight_decay, "share": share}
        self.optimizer.add_param_group(own)
        self.weights = objective.bag_weights(torch.from_numpy(fold.train))
        self.steps = math.ceil(len(fold.train) / inputs.spec.batch_bags)

    def prepare(self) -> None:
        """Start the prompts as tokens of training patches; standardise features by those of training patches."""
        rng = np.random.default_rng(sub_seed(self.fold.seed, 11))
        rows = [self._rows(bag, rng) for bag in self.fold.train.tolist()]
        some = rng.permutation(np.concatenate(rows))[:_CALIBRATION]
        self.model.calibrate(normalise(self.inputs.images(np.sort(some)), self.inputs.card))
        values = torch.cat([self.inputs.features(self.model, own) for own in rows])
        std = values.std(dim=0, correction=0)
        self.head.set_standardisation(values.mean(dim=0), std.where(std > 1e-6, 1.0))

    def rate(self, epoch: int) -> float:
        """Learning rate of the prompts at the last step of an epoch (from 1)."""
        total = self.steps * self.inputs.prompts.prompt_epochs
        return self.inputs.prompts.prompt_rate * schedule(epoch * self.steps - 1, total, _WARMUP)

    def epoch(self, epoch: int) -> float:
        """One pass over the training slides; the weighted mean loss."""
        seed = sub_seed(self.fold.seed, 12, epoch)
        rng, turns = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        order, size, total = rng.permutation(self.fold.train), self.inputs.spec.batch_bags, 0.0
        self.model.train()
        self.head.train()
        with seeded(seed, self.inputs.compute.place), quick_backward(self.model, self.inputs.compute.place):
            for step in range(self.steps):
                bags = order[step * size : (step + 1) * size]
                self.optimizer.zero_grad(set_to_none=True)
                weight = float(self.weights[torch.from_numpy(bags)].sum())
                total += sum(self._backward(bag, rng, turns, weight) for bag in bags.tolist())
                self._step((epoch - 1) * self.steps + step)
        return self._finite(total / float(self.weights[torch.from_numpy(self.fold.train)].sum()), epoch)

    @torch.no_grad()
    def val_loss(self) -> float | None:
        """Weighted mean loss of the validation slides, on patches that are the same in every epoch."""
        if not len(self.fold.val):
            return None
        self.model.eval()
        self.head.eval()
        rng, total = np.random.default_rng(sub_seed(self.fold.seed, 13)), 0.0
        for bag in self.fold.val.tolist():
            features = self.inputs.features(self.model, self._rows(bag, rng)).to(self.inputs.compute.place)
            total += float(self._loss(bag, features))
        return total / float(self.weights[torch.from_numpy(self.fold.val)].sum())

    def trained(self) -> dict[str, Tensor]:
        """All trained parameters and the standardisation, by their names in the joint model."""
        own = {f"prompts.{name}": value for name, value in self.model.trained_parameters().items()}
        return own | {f"head.{name}": value for name, value in self.head.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """What a resumed tuning needs besides the optimiser."""
        own = {f"prompts.{name}": value for name, value in self.model.adapter_state().items()}
        return own | {f"head.{name}": value for name, value in self.head.state_dict().items()}

    def _rows(self, bag: int, rng: np.random.Generator) -> NDArray[np.int64]:
        prompts = self.inputs.prompts
        return chosen_rows(self.ranked[bag], prompts.prompt_top, prompts.prompt_random, rng)

    def _backward(self, bag: int, rng: np.random.Generator, turns: torch.Generator, weight: float) -> float:
        """Add the gradients of one slide's loss, divided by `weight`; returns the weighted loss."""
        images = turn(self.inputs.images(self._rows(bag, rng)), turns, flips=True, rotations=True)
        parts = list(torch.split(images, CHUNK))
        with torch.no_grad():
            found = torch.cat([self._features(part) for part in parts])
        features = found.requires_grad_()
        loss = self._loss(bag, features)
        (loss / weight).backward()  # type: ignore[no-untyped-call]
        assert features.grad is not None
        for part, gradient in zip(parts, torch.split(features.grad, CHUNK), strict=True):
            self._features(part).backward(gradient)  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _features(self, images: Tensor) -> Tensor:
        with self.inputs.compute.lowered():
            found = self.model.features(normalise(images, self.inputs.card))
        return found.float()

    def _loss(self, bag: int, features: Tensor) -> Tensor:
        """The weighted loss of a slide from the features of its chosen patches."""
        index = torch.tensor([bag])
        targets = self.objective.targets(index)
        targets = None if targets is None or not self.head.training else targets.to(features.device)
        output = self.head(features, offsets_of([len(features)]), targets)
        loss = self.objective.losses(output.logits.float(), index)
        if output.auxiliary is not None:
            loss = loss + output.auxiliary
        return (loss * self.weights[index].to(loss)).sum()

    def _step(self, step: int) -> None:
        prompts = self.inputs.prompts
        factor = schedule(step, self.steps * prompts.prompt_epochs, _WARMUP)
        for group in self.optimizer.param_groups:
            group["lr"] = prompts.prompt_rate * factor * group["share"]
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], _CLIP)
        self.optimizer.step()

    def _finite(self, loss: float, epoch: int) -> float:
        if not math.isfinite(loss):
            raise MilError(
                f"the loss of prompt tuning is {loss} in epoch {epoch}", todo="Lower --prompt-rate, or --precision fp32"
            )
        return loss


def _ranked(inputs: PromptInputs, objective: Objective, fold: FoldRows) -> dict[int, NDArray[np.int64]]:
    """The rows of each training and validation slide by decreasing attention of a model on the stored features."""
    guide = fit(inputs.bags, objective, fold.train, fold.val, inputs.spec, seed=fold.seed, device=inputs.compute.place)
    found = {}
    for bag in np.concatenate([fold.train, fold.val]).tolist():
        weights = attention(guide.model, inputs.bags.subset([bag]), device=inputs.compute.place)
        found[bag] = inputs.rows(bag)[np.argsort(-weights, kind="stable")]
    return found


def _key(inputs: PromptInputs, fold: FoldRows) -> str:
    """Digest of everything that a state belongs to, within one training."""
    settings = {**asdict(inputs.prompts), "weights": None}
    rows = [fold.train.tolist(), fold.val.tolist()]
    facts = [settings, asdict(inputs.spec), *rows, fold.seed, inputs.compute.arithmetic]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
