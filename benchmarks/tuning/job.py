"""One training of the tuning benchmark: what is asked for, the model it gives, and how it is scored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from benchmarks.tuning import variants
from benchmarks.tuning.data import DATA, INPUT_PX, classes_of
from pathotune.adapters import METHODS, configure
from pathotune.backbone import Backbone, BackboneCard, open_backbone
from pathotune.config import TaskText
from pathotune.model import PathoTune
from pathotune.training import FitOptions, FitResult, fit
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import LabelledImages

Json = dict[str, Any]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKBONE = "deit_tiny_patch16_224"
WEIGHTS = DATA / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
BACKBONES = {
    "deit-tiny": (BACKBONE, WEIGHTS),
    "vit-s14": ("vit_small_patch14_dinov2", DATA / "weights" / "vit_small_patch14_dinov2.imgfocus.fp16.safetensors"),
}
"""Network and weights by name. The ViT-S/14 is of DINOv2's type; its origin is not documented (see the data folder)."""


@dataclass(frozen=True)
class Job:
    """A training. Equal jobs have equal keys, and give equal results on one machine.

    method    a method of pathotune; `colour`; `suggest`: see `comparisons.label_choice`; `slide-prompts`: see
              `comparisons.slide_tuning`
    sizes     most patches to train, validate and test on
    fields    of PathoTuneConfig, beyond what the method fixes
    options   of FitOptions
    texts     what fills the template, one for each task
    variant   something done to the model that no configuration offers: see `variants`
    probes    score the test patches also under the changes of `variants` and `shift`
    fold      tune inside this fold of a cross-validation over whole images, then classify these as bags: see `slides`
    backbone  a name of BACKBONES
    """

    dataset: str
    method: str
    seed: int
    sizes: tuple[int, int, int]
    epochs: int
    learning_rate: float
    fields: Json = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    texts: list[Json] = field(default_factory=list)
    variant: str = ""
    probes: bool = False
    fold: int | None = None
    backbone: str = "deit-tiny"

    @property
    def key(self) -> str:
        """Twelve characters that name the job."""
        facts = dataclasses.asdict(self)
        if self.backbone == "deit-tiny":  # the only one when the first results were kept
            del facts["backbone"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def train_model(
    job: Job, train: LabelledImages, validation: LabelledImages
) -> tuple[PathoTune, BackboneCard, FitResult]:
    """The model of a job, trained."""
    torch.manual_seed(job.seed)
    vit, card = open_vit(job.backbone)
    tasks = tuple(TaskText(**text) for text in job.texts) or (TaskText(),)
    model = PathoTune(configure(job.method, classes=classes_of(job.dataset), tasks=tasks, **job.fields), vit)
    variants.apply(job.variant, model)
    given = {"learning_rate": job.learning_rate, "patience": job.epochs, **job.options}
    options = FitOptions(epochs=job.epochs, seed=job.seed, **{**METHODS[job.method].training, **given})
    return model, card, fit(model, card, train, validation, options, Compute(DEVICE))


def open_vit(name: str) -> tuple[Backbone, BackboneCard]:
    """A backbone of BACKBONES."""
    network, weights = BACKBONES[name]
    return open_backbone(network, weights, input_px=INPUT_PX)


def scores(labels: NDArray[np.int64], found: NDArray[np.float32]) -> Json:
    """Accuracy, macro F1, macro AUROC one against the rest, expected calibration error in 15 bins."""
    guess = found.argmax(axis=1)
    present = [place for place in range(found.shape[1]) if 0 < (labels == place).sum() < len(labels)]
    return {
        "accuracy": float(accuracy_score(labels, guess)),
        "macro_f1": float(f1_score(labels, guess, average="macro", labels=present, zero_division=0)),
        "auroc": float(np.mean([roc_auc_score(labels == place, found[:, place]) for place in present])),
        "ece": calibration_error(labels, found),
    }


def calibration_error(labels: NDArray[np.int64], found: NDArray[np.float32], bins: int = 15) -> float:
    """Expected calibration error of the foremost class, bins of equal width (Guo et al. 2017, arXiv 1706.04599)."""
    sure, right = found.max(axis=1), found.argmax(axis=1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(sure[place == b].mean() - right[place == b].mean()) * (place == b).mean() for b in np.unique(place)]
    return float(np.sum(gaps))
