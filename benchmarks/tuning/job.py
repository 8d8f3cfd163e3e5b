"""One training: what to train on what, and what came of it. Run in a process of its own, so that memory is its own.

python -m benchmarks.tuning.job '{"dataset": "crc", "method": "linear", ...}'
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.tuning import shift, variants
from benchmarks.tuning.data import DATA, INPUT_PX, Part, classes_of, split
from pathotune.adapters import configure
from pathotune.arithmetic import Compute
from pathotune.backbone import BackboneCard, open_backbone
from pathotune.batches import LabelledImages
from pathotune.checkpoint import save_adapter
from pathotune.config import TaskText
from pathotune.model import PathoTune
from pathotune.training import FitOptions, FitResult, fit, probabilities
from wsi_pipeline.system.machine import prepare_process

Json = dict[str, Any]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKBONE = "deit_tiny_patch16_224"
WEIGHTS = DATA / "weights" / "deit_tiny_patch16_224.fp16.safetensors"


@dataclass(frozen=True)
class Job:
    """A training. Equal jobs have equal keys, and give equal results on one machine.

    method    a method of pathotune, or `colour`
    sizes     most patches to train, validate and test on
    fields    of PathoTuneConfig, beyond what the method fixes
    options   of FitOptions
    texts     what fills the template, one for each task
    variant   something done to the model that no configuration offers: see `variants`
    probes    score the test patches also under the changes of `variants` and `shift`
    fold      tune inside this fold of a cross-validation over whole images, then classify these as bags: see `slides`
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

    @property
    def key(self) -> str:
        """Twelve characters that name the job."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def train_model(
    job: Job, train: LabelledImages, validation: LabelledImages
) -> tuple[PathoTune, BackboneCard, FitResult]:
    """The model of a job, trained."""
    torch.manual_seed(job.seed)
    vit, card = open_backbone(BACKBONE, WEIGHTS, input_px=INPUT_PX)
    tasks = tuple(TaskText(**text) for text in job.texts) or (TaskText(),)
    model = PathoTune(configure(job.method, classes=classes_of(job.dataset), tasks=tasks, **job.fields), vit)
    variants.apply(job.variant, model)
    options = FitOptions(
        epochs=job.epochs, learning_rate=job.learning_rate, seed=job.seed, **{"patience": job.epochs, **job.options}
    )
    return model, card, fit(model, card, train, validation, options, Compute(DEVICE))


def run(job: Job) -> Json:
    """Train and test; scores, costs, and test scores under changes that need no training of their own."""
    if job.fold is not None:
        from benchmarks.tuning.slides import run_fold

        return run_fold(job)
    train, validation, test = split(job.dataset, job.seed, job.sizes)
    if job.method == "colour":
        return _colour(train, test)
    model, card, result = train_model(job, train.data, validation.data)
    found = probabilities(model, card, test.data, Compute(DEVICE))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        save_adapter(path, model, card)
        size = path.stat().st_size
    best = result.history[result.best_epoch - 1]
    return {
        **scores(test.data.labels, found),
        "validation_macro_f1": best.val_macro_f1,
        "best_epoch": result.best_epoch,
        "trained": sum(value.numel() for value in model.trained_parameters().values()),
        "share": model.trained_fraction(),
        "adapter_bytes": size,
        "seconds_per_epoch": float(np.median([row.seconds for row in result.history])),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
        "device": DEVICE,
        "per_task": _per_task(test, found),
        "at_test": _probe(model, card, test) if job.probes else {},
    }


def _probe(model: PathoTune, card: BackboneCard, test: Part) -> Json:
    own = variants.at_test(model, card, test.data, lambda found: scores(test.data.labels, found), DEVICE)
    return {**own, **shift.at_test(model, card, test.data, DEVICE)}


def _per_task(test: Part, found: NDArray[np.float32]) -> Json:
    tasks = test.data.tasks
    return (
        {}
        if tasks is None
        else {str(t): scores(test.data.labels[tasks == t], found[tasks == t]) for t in np.unique(tasks)}
    )


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


def _colour(train: Part, test: Part) -> Json:
    """Stain and texture statistics with a logistic regression: what can be had without a network."""
    from wsi_pipeline.encoders.names import open_encoder

    encoder = open_encoder("colour", device="cpu")
    started = time.perf_counter()
    features = [encoder.encode(part.data.pixels) for part in (train, test)]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    model.fit(features[0], train.data.labels)
    found = model.predict_proba(features[1]).astype(np.float32)
    return {
        **scores(test.data.labels, found),
        "seconds_per_epoch": time.perf_counter() - started,
        "trained": 0,
        "share": 0,
    }


def main() -> None:
    """Run the job in the argument; its result is the last line printed."""
    prepare_process()
    values = json.loads(sys.argv[1])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(json.dumps(run(Job(**{**values, "sizes": tuple(values["sizes"])}))))


if __name__ == "__main__":
    main()
