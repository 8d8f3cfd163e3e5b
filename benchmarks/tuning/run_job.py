"""One training: what to train on what, and what came of it. Run in a process of its own, so that memory is its own.

python -m benchmarks.tuning.run_job '{"dataset": "crc", "method": "linear", ...}'
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.tuning import shift, variants
from benchmarks.tuning.comparisons.label_choice import run_choice
from benchmarks.tuning.comparisons.slide_tuning import run_slide_prompts
from benchmarks.tuning.data import Part, split
from benchmarks.tuning.job import DEVICE, Job, Json, scores, train_model
from benchmarks.tuning.slides import run_fold
from pathotune.backbone import BackboneCard
from pathotune.checkpoint import save_adapter
from pathotune.model import PathoTune
from pathotune.training import probabilities
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import ArrayImages
from wsi_pipeline.system.machine import prepare_process


def run(job: Job) -> Json:
    """Train and test; scores, costs, and test scores under changes that need no training of their own."""
    if job.method == "suggest":
        return run_choice(job)
    if job.method == "slide-prompts":
        return run_slide_prompts(job)
    if job.fold is not None:
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
        "precision": Compute(DEVICE).arithmetic,
        "per_task": _per_task(test, found),
        "at_test": _probe(model, card, test, job.probes),
    }


def _probe(model: PathoTune, card: BackboneCard, test: Part, shifted: bool) -> Json:
    """Scores with instance tokens of other images; where asked for, under other stains and on another organ too."""
    own = variants.at_test(model, card, test.data, lambda found: scores(test.data.labels, found), DEVICE)
    if test.data.tasks is not None and model.config.task_classes is None and len(model.config.tasks) == 2:
        other = ArrayImages(test.data.pixels, test.data.labels, 1 - test.data.tasks)
        own["swapped"] = scores(test.data.labels, probabilities(model, card, other, Compute(DEVICE)))
    return {**own, **shift.at_test(model, card, test.data, DEVICE)} if shifted else own


def _per_task(test: Part, found: NDArray[np.float32]) -> Json:
    tasks = test.data.tasks
    return (
        {}
        if tasks is None
        else {str(t): scores(test.data.labels[tasks == t], found[tasks == t]) for t in np.unique(tasks)}
    )


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
