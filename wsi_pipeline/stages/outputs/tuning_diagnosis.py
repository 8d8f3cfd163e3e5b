"""Diagnosis of a finished tuning: what [CLS] looks at, before and after, as numbers and as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from pathotune.adapters import configure
from pathotune.checkpoint import load_adapter
from pathotune.diagnosis import diagnose
from pathotune.model import PathoTune
from pathotune.training.batches import batches, normalise
from wsi_pipeline.report.figures.diagnosis_figure import diagnosis_png
from wsi_pipeline.stages.results.tuning_files import DIAGNOSIS, DIAGNOSIS_PICTURE
from wsi_pipeline.stages.tune import TuneJob, open_vit
from wsi_pipeline.system.atomic import write_bytes, write_text

MOST_PATCHES = 128


def diagnose_tuning(job: TuneJob) -> Path:
    """Write diagnosis.json and diagnosis.png of a finished tuning into its folder; returns the picture's path.

    Measured in float32 on at most MOST_PATCHES test patches (validation patches if there is no test part), sampled
    with the seed. The untuned backbone is measured on the same patches.
    """
    rows = job.split.test if len(job.split.test) else job.split.validation
    chosen = np.random.default_rng(job.spec.seed).permutation(rows)[:MOST_PATCHES]
    patches = job.patches.take(np.sort(chosen))
    tuned = load_adapter(job.run.adapter(job.name), open_vit(job.spec, job.opened.weights)[0])
    bare = PathoTune(configure("linear"), open_vit(job.spec, job.opened.weights)[0])
    part = next(iter(batches(patches, np.arange(len(patches)), len(patches), job.opened.card, torch.device("cpu"))))
    images = normalise(part.images, job.opened.card)
    of_tuned, of_bare = diagnose(tuned, images, part.labels, part.tasks).to_dict(), diagnose(bare, images).to_dict()
    found = {
        "patches": len(patches),
        "part": "test" if len(job.split.test) else "validation",
        "tuned": of_tuned,
        "bare": of_bare,
    }
    write_text(job.folder / DIAGNOSIS, json.dumps(found, indent=2) + "\n")
    write_bytes(job.folder / DIAGNOSIS_PICTURE, diagnosis_png(of_tuned, of_bare))
    return job.folder / DIAGNOSIS_PICTURE
