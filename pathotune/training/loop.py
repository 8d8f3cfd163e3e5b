"""The fit loop: warm-up and cosine decay, bf16, early stopping, seeds, and resuming after a crash.

The order of images and their augmentation depend only on seed and epoch, so a resumed training gives the same result
as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional as F

from pathotune.backbone import BackboneCard
from pathotune.checks import check_choice, check_whole
from pathotune.errors import ConfigError
from pathotune.model import PathoTune
from pathotune.training.arithmetic import ON_CPU, Compute, quick_backward
from pathotune.training.augment import draw_ways, jitter_stains, turn
from pathotune.training.batches import LabelledImages, answers, batches, normalise
from pathotune.training.frozen import FrozenStates, freeze
from pathotune.training.optimizer import OPTIMIZERS, make_optimizer
from pathotune.training.trainstate import EpochRow, Progress, restore, store

MONITORS = ("macro_f1", "loss")
_MOST = 1 << 40
_CALIBRATION = 128
"""Number of images for the calibration of the refine module."""


@dataclass(frozen=True)
class FitOptions:
    """Training options. Raises ConfigError for a value out of range.

    epochs           maximum number of passes over the training images
    batch            images per step
    optimizer        radam (as in the paper) or adamw: see `pathotune.training.optimizer`
    learning_rate    peak learning rate
    network_rate     learning rate of refine module, text projection and head relative to that of prompt tokens: a rate
                     that suits prompt tokens ruins convolutions within a few steps
    layer_decay      factor on the learning rate of the backbone's weights for each layer above them (Bao et al. 2021,
                     arXiv 2106.08254); 1: the same rate for all layers
    weight_decay     decoupled; applies to matrices of projections, refine module, head and backbone, not to prompts
    warmup           fraction of all steps in which the learning rate rises; afterwards it follows a cosine to zero
    clip             maximum norm of the gradient; 0: no clipping
    class_weights    weight classes by the inverse of their frequency in the training images
    flips, rotations augment by mirror images and by right-angle rotations
    stain_jitter     strength of random stain variation; 0: none (0.05 is light, 0.2 strong)
    label_smoothing  fraction of the target spread evenly over all classes
    patience         epochs without improvement in validation before stopping
    monitor          validation measure to improve: macro_f1 or loss
    """

    epochs: int = 20
    batch: int = 64
    optimizer: str = "radam"
    learning_rate: float = 3e-3
    network_rate: float = 1.0
    layer_decay: float = 1.0
    weight_decay: float = 1e-2
    warmup: float = 0.1
    clip: float = 1.0
    class_weights: bool = True
    flips: bool = True
    rotations: bool = True
    stain_jitter: float = 0.0
    label_smoothing: float = 0.0
    patience: int = 5
    monitor: str = "macro_f1"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("monitor", self.monitor, MONITORS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        for name in ("epochs", "batch", "patience"):
            check_whole(name, getattr(self, name), 1, _MOST)
        for name in (
            "learning_rate",
            "network_rate",
            "weight_decay",
            "clip",
            "stain_jitter",
            "label_smoothing",
            "warmup",
        ):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ConfigError(f"{name} must be >= 0, got {value}")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if self.learning_rate == 0 or max(self.warmup, self.label_smoothing) >= 1:
            raise ConfigError("learning_rate must be > 0, warmup and label_smoothing must be < 1")


@dataclass(frozen=True)
class FitResult:
    """Result of a training run: its epochs, the epoch whose weights were kept, and whether it stopped early."""

    history: tuple[EpochRow, ...]
    best_epoch: int
    stopped_early: bool


@dataclass(frozen=True)
class Watch:
    """Callbacks for progress: the number of images just processed, and each finished epoch.

    A resumed training first reports the earlier epochs, each followed by its number of images.
    """

    on_images: Callable[[int], None] = lambda count: None
    on_epoch: Callable[[EpochRow], None] = lambda row: None


def fit(
    model: PathoTune,
    card: BackboneCard,
    train: LabelledImages,
    validation: LabelledImages,
    options: FitOptions,
    compute: Compute = ON_CPU,
    *,
    resume: Path | None = None,
    watch: Watch = Watch(),
) -> FitResult:
    """Train `model` in place. It ends in eval mode with the weights of the best epoch.

    `resume` is a folder for a checkpoint after each epoch. If it holds one of the same configuration, backbone, labels
    and options, training continues from there (pixels are not compared: use a separate folder for each set of images).
    Raises ConfigError if the model has no classes, labels are out of range, a class has no training images, there are
    no validation images, or the loss is not finite.
    """
    _check_labels(model, train, validation)
    trainer = _Trainer(model.to(compute.device), card, train, options, compute)
    key = _key(model, train, validation, options)
    progress = restore(resume, model, trainer.optimizer, key) if resume else None
    if progress is None:
        progress = Progress()
        trainer.calibrate()
    if not _finished(progress, options):
        trainer.freeze(validation)
    for row in progress.history:
        watch.on_epoch(row)
        watch.on_images(len(train.labels) + len(validation.labels))
    while not _finished(progress, options):
        started = time.perf_counter()
        epoch = len(progress.history) + 1
        loss = trainer.epoch(epoch, watch.on_images)
        row = _row(epoch, loss, trainer.rate(epoch), *trainer.judge(validation, watch.on_images), started)
        progress.history.append(row)
        if _better(row, progress, options):
            progress.best_epoch = epoch
            progress.best = {name: value.detach().cpu().clone() for name, value in model.trained_parameters().items()}
        if resume:
            store(resume, model, trainer.optimizer, progress, model.adapter_state(), key)
        watch.on_epoch(row)
    for name, value in model.trained_parameters().items():
        value.data.copy_(progress.best[name])
    model.eval()
    return FitResult(tuple(progress.history), progress.best_epoch, len(progress.history) < options.epochs)


def probabilities(
    model: PathoTune,
    card: BackboneCard,
    images: LabelledImages,
    compute: Compute = ON_CPU,
    *,
    batch: int = 64,
    on_images: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float32]:
    """Class probabilities float32 (N, C) of images; their labels are not used."""
    model.to(compute.device).eval()
    found = [np.zeros((0, len(model.config.classes)), np.float32)]
    rows = np.arange(len(images.labels))
    for part in batches(images, rows, batch, card, compute.place):
        with torch.inference_mode(), compute.lowered():
            logits = model.logits(normalise(part.images, card), part.tasks)
        found.append(logits.float().softmax(dim=1).cpu().numpy())
        on_images(len(part.labels))
    return np.concatenate(found)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate at a step (0-based): linear warm-up, then half a cosine down to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class _Trainer:
    """A model with its optimiser and training images."""

    def __init__(
        self,
        model: PathoTune,
        card: BackboneCard,
        train: LabelledImages,
        options: FitOptions,
        compute: Compute,
    ) -> None:
        self.model, self.card, self.train, self.options = model, card, train, options
        self.compute, self.device = compute, compute.place
        rates = (options.learning_rate, options.network_rate, options.weight_decay, options.layer_decay)
        self.optimizer = make_optimizer(model, options.optimizer, *rates)
        self.steps = math.ceil(len(train.labels) / options.batch)
        if options.label_smoothing and train.tasks is not None and model.config.task_classes is not None:
            raise ConfigError("label_smoothing must be 0 where tasks have classes of their own")
        self.weights = _class_weights(model, train.labels, options).to(self.device)
        self.frozen: FrozenStates | None = None
        self.frozen_validation: FrozenStates | None = None

    def freeze(self, validation: LabelledImages) -> None:
        """Compute once what frozen layers give, where that is less work and there is room for it."""
        options, room = self.options, self.compute.cache_mb << 20
        if not room or options.epochs < 2:
            return
        self.frozen_validation = freeze(self.model, self.card, validation, (0,), self.compute, room)
        room -= 0 if self.frozen_validation is None else self.frozen_validation.nbytes
        ways = [
            4 * mirror + turn for mirror in range(1 + options.flips) for turn in range(4 if options.rotations else 1)
        ]
        if options.stain_jitter == 0 and len(ways) <= options.epochs:
            self.frozen = freeze(self.model, self.card, self.train, ways, self.compute, room)

    def calibrate(self) -> None:
        """Calibrate the refine module on training images without augmentation."""
        chosen = torch.randperm(len(self.train.labels), generator=torch.Generator().manual_seed(self.options.seed))
        rows = chosen[:_CALIBRATION].numpy()
        for part in batches(self.train, rows, len(rows), self.card, self.device):
            self.model.calibrate(normalise(part.images, self.card))

    def rate(self, epoch: int) -> float:
        """Learning rate at the last step of an epoch (1-based)."""
        total = self.options.epochs * self.steps
        return self.options.learning_rate * schedule(epoch * self.steps - 1, total, self.options.warmup)

    def epoch(self, epoch: int, on_images: Callable[[int], None]) -> float:
        """Train for one epoch and return the mean loss."""
        seed = int.from_bytes(hashlib.sha256(f"{self.options.seed}/{epoch}".encode()).digest()[:7])
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.train.labels), generator=generator).numpy()
        total = 0.0
        self.model.train()
        with torch.random.fork_rng(), quick_backward(self.model, self.device):
            torch.manual_seed(seed)  # for dropout
            for step, (logits, labels) in enumerate(self._passes(order, generator)):
                value = self._step(self._loss(logits, labels), (epoch - 1) * self.steps + step)
                total += value * len(labels)
                on_images(len(labels))
        return total / len(order)

    def _passes(self, order: NDArray[np.int64], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels of the training images in this order, a step at a time, randomly turned."""
        options = self.options
        if self.frozen is None:
            for part in batches(self.train, order, options.batch, self.card, self.device):
                images = turn(part.images, generator, flips=options.flips, rotations=options.rotations)
                images = jitter_stains(images, options.stain_jitter, generator)
                with self.compute.lowered():
                    logits = self.model.logits(normalise(images, self.card), part.tasks)
                yield logits, part.labels
            return
        for first in range(0, len(order), options.batch):
            rows = order[first : first + options.batch]
            ways = draw_ways(len(rows), generator, flips=options.flips, rotations=options.rotations)
            states = self.frozen.take(torch.from_numpy(rows), ways)
            labels, tasks = answers(self.train, rows, self.device)
            with self.compute.lowered():
                logits = self.model.classify(self.model.features_from(states, tasks), tasks)
            yield logits, labels

    def judge(self, images: LabelledImages, on_images: Callable[[int], None]) -> tuple[float, float, float]:
        """Loss, accuracy and macro F1 of the current model."""
        size = 2 * self.options.batch
        if self.frozen_validation is None:
            found = probabilities(self.model, self.card, images, self.compute, batch=size, on_images=on_images)
        else:
            found = self._from_states(images, self.frozen_validation, size, on_images)
        labels = torch.from_numpy(images.labels).to(self.device)
        logs = torch.from_numpy(found).to(self.device).clamp_min(1e-12).log()
        loss = float(F.nll_loss(logs, labels, weight=self.weights))
        guess = found.argmax(axis=1)
        score = f1_score(images.labels, guess, average="macro", labels=np.unique(images.labels), zero_division=0)
        return loss, float((guess == images.labels).mean()), float(score)

    def _from_states(
        self, images: LabelledImages, states: FrozenStates, batch: int, on_images: Callable[[int], None]
    ) -> NDArray[np.float32]:
        """Class probabilities (N, C) of images from the states of their frozen layers."""
        self.model.eval()
        found = []
        for first in range(0, len(images.labels), batch):
            rows = np.arange(first, min(first + batch, len(images.labels)))
            _, tasks = answers(images, rows, self.device)
            own = states.take(torch.from_numpy(rows), torch.zeros(len(rows), dtype=torch.int64))
            with torch.inference_mode(), self.compute.lowered():
                logits = self.model.classify(self.model.features_from(own, tasks), tasks)
            found.append(logits.float().softmax(dim=1).cpu().numpy())
            on_images(len(rows))
        return np.concatenate(found)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, self.weights, label_smoothing=self.options.label_smoothing)

    def _step(self, loss: Tensor, step: int) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(
                f"the loss is {value} at step {step + 1}", todo="Use a lower learning rate, or precision fp32."
            )
        factor = schedule(step, self.options.epochs * self.steps, self.options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * factor * group["share"]
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.options.clip:
            nn.utils.clip_grad_norm_(
                [p for group in self.optimizer.param_groups for p in group["params"]], self.options.clip
            )
        self.optimizer.step()
        return value


def _check_labels(model: PathoTune, train: LabelledImages, validation: LabelledImages) -> None:
    count = len(model.config.classes)
    if not count:
        raise ConfigError("this model has no classes to train for", todo="Name classes in its configuration.")
    if not len(validation.labels):
        raise ConfigError("there are no validation images to choose the best epoch by")
    for images in (train, validation):
        if len(images.labels) and not 0 <= images.labels.min() <= images.labels.max() < count:
            raise ConfigError(f"labels must be 0 to {count - 1}, indices into the model's classes")


def _class_weights(model: PathoTune, labels: NDArray[np.int64], options: FitOptions) -> Tensor:
    """Weights (C,): N / (C n_c), or ones. Raises ConfigError for a class without images."""
    names = model.config.classes
    counts = np.bincount(labels, minlength=len(names))
    missing = [name for name, count in zip(names, counts, strict=True) if not count]
    if missing:
        raise ConfigError(
            f"no training image of class {', '.join(missing)}", todo="Leave the class out, or add images."
        )
    weights = len(labels) / (len(names) * counts) if options.class_weights else np.ones(len(names))
    return torch.tensor(weights, dtype=torch.float32)


def _finished(progress: Progress, options: FitOptions) -> bool:
    done = len(progress.history)
    return done >= options.epochs or (done > 0 and done - progress.best_epoch >= options.patience)


def _better(row: EpochRow, progress: Progress, options: FitOptions) -> bool:
    if not progress.best_epoch:
        return True
    best = progress.history[progress.best_epoch - 1]
    if options.monitor == "loss":
        return row.val_loss < best.val_loss
    return (row.val_macro_f1, -row.val_loss) > (best.val_macro_f1, -best.val_loss)


def _row(
    epoch: int, loss: float, rate: float, judged_loss: float, accuracy: float, score: float, started: float
) -> EpochRow:
    return EpochRow(epoch, loss, judged_loss, accuracy, score, rate, time.perf_counter() - started)


def _key(model: PathoTune, train: LabelledImages, validation: LabelledImages, options: FitOptions) -> str:
    """Digest of the model, options and labels that a checkpoint belongs to."""
    facts = [model.config.to_dict(), model.fingerprint, dataclasses.asdict(options)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for images in (train, validation):
        digest.update(np.ascontiguousarray(images.labels).tobytes())
        digest.update(b"" if images.tasks is None else np.ascontiguousarray(images.tasks).tobytes())
    return digest.hexdigest()
