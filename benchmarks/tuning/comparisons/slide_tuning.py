"""Whole images as bags: frozen features beside prompts tuned from the images' labels alone, in the same folds.

The folds, bags and classifier are those of `slides`, where prompts are tuned on patch labels: its rows stand beside
these. Test images are in neither training nor stopping.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, roc_auc_score

from benchmarks.tuning.data import load
from benchmarks.tuning.job import DEVICE, Job, open_vit
from benchmarks.tuning.plans import Plan, Table, grid, interval
from benchmarks.tuning.queue import Results
from benchmarks.tuning.slides import FOLDS, bag_labels, fold_of, instances_of
from pathotune.adapters import configure
from pathotune.model import PathoTune
from pathotune.training.arithmetic import Compute
from wsi_pipeline.config.prompt_spec import PromptSpec
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.prompts.prompt_inputs import InstancePixels, PromptInputs, bags_through
from wsi_pipeline.mil.prompts.tune_fold import tune_fold
from wsi_pipeline.mil.trained.inference import probabilities
from wsi_pipeline.mil.training.fit import fit
from wsi_pipeline.mil.training.objectives import Classification
from wsi_pipeline.mil.training.training_run import FoldRows

Json = dict[str, Any]
SETS = ("ucsb", "crc")


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Instances in memory."""

    values: NDArray[np.uint8]
    mpp: float | None = None

    @property
    def patch_px(self) -> int:
        return int(self.values.shape[1])

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.values[rows]

    def contents(self, rows: NDArray[np.int64]) -> list[str]:
        return [""] * len(rows)

    def identity(self, rows: NDArray[np.int64]) -> str:
        return ""


def run_slide_prompts(job: Job) -> Json:
    """Probabilities of the held-out images by frozen and by slide-tuned features: {image: [label, frozen, tuned]}."""
    patches = load(job.dataset)
    images, labels = bag_labels(job.dataset, patches)
    train, val, test = fold_of(job, patches, images, labels)
    chosen = instances_of(patches, images, np.random.default_rng(job.seed))
    rows, offsets = np.concatenate(chosen), np.cumsum([0, *(len(own) for own in chosen)]).astype(np.int64)
    network, card = open_vit(job.backbone)
    pixels, names = InstancePixels(_Pixels(patches.pixels[rows]), len(rows)), tuple(map(str, images))
    empty = Bags(np.zeros((len(rows), network.embed_dim), np.float32), offsets, names)
    spec, prompts = MilSpec(), PromptSpec(tune_prompts=True, prompt_epochs=job.epochs, prompt_rate=job.learning_rate)
    inputs = PromptInputs(empty, pixels, network, card, prompts, spec, Compute(DEVICE))
    frozen = inputs.features(PathoTune(configure("linear"), network), np.arange(len(rows))).numpy()
    bags = Bags(frozen, offsets, names)
    inputs = PromptInputs(bags, pixels, network, card, prompts, spec, Compute(DEVICE))
    objective = Classification(torch.from_numpy(labels), 2, balanced=True)
    with TemporaryDirectory() as folder:
        model = tune_fold(inputs, objective, FoldRows(train, val, job.seed), Path(folder))
        tuned = bags_through(inputs, model, Path(folder))
        found = []
        for own in (bags, tuned):
            fitted = fit(own, objective, train, val, spec, seed=job.seed)
            found.append(probabilities(fitted.model, own, test)[:, 1])
    pairs = zip(images[test], labels[test], *found, strict=True)
    return {"bags": {str(image): [int(label), float(a), float(b)] for image, label, a, b in pairs}}


def _of(plan: Plan, dataset: str, seed: int) -> list[Job]:
    return [Job(dataset, "slide-prompts", seed, (0, 0, 0), 15, 3e-3, fold=fold) for fold in range(FOLDS)]


def _rows(plan: Plan) -> dict[str, list[Job]]:
    return {dataset: [job for seed in plan.seeds for job in _of(plan, dataset, seed)] for dataset in SETS}


def _jobs(plan: Plan) -> list[Job]:
    return [job for own in _rows(plan).values() for job in own]


def _write(plan: Plan, results: Results) -> str:
    lines = []
    for dataset in SETS:
        supervised = [[plan.job(dataset, "pathotune", seed, fold=k) for k in range(FOLDS)] for seed in plan.seeds]
        scored = {
            "prompts from slide labels": [_scores(results, _of(plan, dataset, seed)) for seed in plan.seeds],
            "prompts from patch labels": [_scores(results, own) for own in supervised],
        }
        for name, found in scored.items():
            done = [row for row in found if row is not None]
            if not done:
                lines.append([dataset, name, "0", "not run", "", "", "", "", ""])
                continue
            values = 100 * np.array(done)  # seeds, (frozen, tuned), (accuracy, AUROC)
            cells = [_told(values[:, k, m]) for m in (0, 1) for k in (0, 1)]
            gaps = [_told(values[:, 1, m] - values[:, 0, m]) for m in (0, 1)]
            lines.append([dataset, name, str(len(done)), *cells[:2], gaps[0], *cells[2:], gaps[1]])
    head = ("bags", "tuned in the fold", "seeds", "accuracy, frozen", "tuned", "better by")
    return grid((*head, "AUROC, frozen", "tuned", "better by"), lines)


def _scores(results: Results, jobs: list[Job]) -> list[list[float]] | None:
    """Accuracy and AUROC over the bags of all folds, for frozen and for tuned features; None if a fold is missing."""
    found = [results.get(job) for job in jobs]
    if not all(found):
        return None
    values = np.array([row for result in found if result for row in result["bags"].values()])
    labels = values[:, 0]
    return [
        [float(accuracy_score(labels, values[:, k] > 0.5)), float(roc_auc_score(labels, values[:, k]))] for k in (1, 2)
    ]


def _told(values: NDArray[np.float64]) -> str:
    mean, half = interval(values)
    return f"{mean:.1f}" if np.isnan(half) else f"{mean:.1f} ± {half:.1f}"


SLIDE_PROMPTS = Table("Prompts from slide labels alone", _jobs, _write, _rows)
