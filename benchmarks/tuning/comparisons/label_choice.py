"""Is it better to label the patches that a model is least sure of than patches drawn at random?

CRC nuclei as a person would label them: the nuclei of 55 training images (60 an image, drawn once for all seeds) are
unlabelled, 20 drawn at random are labelled first, then more by each rule, and after each addition a classifier is
trained on what is labelled and tested on the nuclei of 30 other images. To be cheap, the classifier is a logistic
regression on frozen [CLS] features, not a tuned network. All rules start from the same 20 labels; a seed is one split
and one start.

suggested   the rule of `tune --suggest`: least sure, images take turns, nuclei lie apart
spread      the same, with random numbers for the doubt: what the spreading alone gives
random      drawn at random
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from benchmarks.tuning.data import CROP, DATA, load, split
from benchmarks.tuning.job import DEVICE, Job, open_vit
from benchmarks.tuning.plans import SIZES, Plan, Table, grid, interval
from benchmarks.tuning.queue import Results
from benchmarks.tuning.shift import features
from pathotune.adapters import configure
from pathotune.backbone import fingerprint
from pathotune.model import PathoTune
from pathotune.training.batches import ArrayImages
from wsi_pipeline.stages.results.least_sure import SlidePatchClasses, least_sure

Json = dict[str, Any]
COUNTS = (20, 40, 60, 80, 100, 150, 200, 300)
PER_IMAGE = 60
RULES = ("random", "spread", "suggested")
_MOST = 100_000
_PENALTY = 0.01
"""C of the logistic regression, as in `shift.probe_ucsb`."""


def run_choice(job: Job) -> Json:
    """Test macro F1 by rule, for each number of labels."""
    started = time.perf_counter()
    patches = load("crc")
    values = _frozen(job)
    pool, test = _images_of(job.seed)
    standard = (values - values[pool].mean(axis=0)) / values[pool].std(axis=0).clip(1e-6)
    coords = _places()
    first = np.random.default_rng([job.seed, 0]).permutation(pool)[: COUNTS[0]]
    found: dict[str, list[float]] = {}
    for rule in RULES:
        labelled, rng = first.tolist(), np.random.default_rng([job.seed, 1])
        found[rule] = []
        for place, count in enumerate(COUNTS):
            model = LogisticRegression(C=_PENALTY, max_iter=1000, class_weight="balanced")
            model.fit(standard[labelled], patches.labels[labelled])
            guess = model.predict(standard[test])
            found[rule].append(float(f1_score(patches.labels[test], guess, average="macro")))
            if place + 1 < len(COUNTS):
                more = COUNTS[place + 1] - count
                labelled += _next(rule, model.predict_proba(standard[pool]), pool, coords, labelled, more, rng)
    return {"counts": list(COUNTS), "macro_f1": found, "seconds_per_epoch": time.perf_counter() - started}


def _next(
    rule: str,
    chances: NDArray[np.float64],
    pool: NDArray[np.int64],
    coords: NDArray[np.int64],
    labelled: list[int],
    more: int,
    rng: np.random.Generator,
) -> list[int]:
    """The patches of the pool (rows of the whole set) that a rule labels next."""
    known = np.isin(pool, labelled)
    if rule == "random":
        return rng.permutation(pool[~known])[:more].tolist()
    if rule == "spread":
        drawn = rng.random(len(pool))
        chances = np.stack([drawn, 1 - drawn], axis=1)
    images = load("crc").images[pool]
    rows = [np.flatnonzero(images == image) for image in np.unique(images)]
    slides = [
        SlidePatchClasses(chances[own].astype(np.float32), coords[pool[own]], CROP, np.flatnonzero(known[own]).tolist())
        for own in rows
    ]
    return [int(pool[rows[patch.slide][patch.row]]) for patch in least_sure(slides, more)]


def _images_of(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the nuclei of the training images, and of the test images."""
    parts = split("crc", seed, (_MOST, _MOST, _MOST))
    images = load("crc").images
    own = _drawn()
    train, test = (own[np.isin(images[own], np.unique(parts[place].groups))] for place in (0, 2))
    return train, test


@cache
def _drawn() -> NDArray[np.int64]:
    """Rows of up to PER_IMAGE nuclei of every image, ascending; the same for every seed."""
    images, rng = load("crc").images, np.random.default_rng(0)
    return np.sort(
        np.concatenate([rng.permutation(np.flatnonzero(images == name))[:PER_IMAGE] for name in np.unique(images)])
    )


def _places() -> NDArray[np.int64]:
    """Upper left corner of every nucleus's crop in its image, (N, 2)."""
    table = pd.read_csv(DATA / "patches" / "crc_nuclei" / "nuclei.csv")
    return (table[["x", "y"]].to_numpy(float).round() - 1 - CROP // 2).astype(np.int64)


def _frozen(job: Job) -> NDArray[np.float32]:
    """Frozen features (all nuclei, D), 0 for those not drawn; kept in a file, since every seed needs the same."""
    vit, card = open_vit(job.backbone)
    folder = Path(os.environ.get("TUNING_CACHE", Path(tempfile.gettempdir()) / "wsi-pipeline-tuning"))
    kept = folder / f"crc{PER_IMAGE}-{fingerprint(vit)[:12]}-{card.input_px}.npy"
    if kept.is_file():
        return np.asarray(np.load(kept))
    patches, rows = load("crc"), _drawn()
    images = ArrayImages(patches.pixels[rows], patches.labels[rows])
    values = np.zeros((len(patches.labels), vit.embed_dim), np.float32)
    values[rows] = features(PathoTune(configure("linear"), vit), card, images, DEVICE)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f".{os.getpid()}.npy")
    np.save(temporary, values)
    temporary.replace(kept)
    return values


def _jobs(plan: Plan) -> list[Job]:
    return [Job("crc", "suggest", seed, SIZES["full"].sizes, 0, 0.0) for seed in plan.seeds]


def _write(plan: Plan, results: Results) -> str:
    found = [result for result in map(results.get, _jobs(plan)) if result]
    if not found:
        return "not run"
    rows = []
    for place, count in enumerate(found[0]["counts"]):
        scored = {rule: [100 * result["macro_f1"][rule][place] for result in found] for rule in RULES}
        gaps = [
            [a - b for a, b in zip(scored[rule], scored["random"], strict=True)] for rule in ("suggested", "spread")
        ]
        cells = [_told(scored[rule]) for rule in ("random", "suggested")]
        rows.append([str(count), *cells, *(_told(gap) for gap in gaps)])
    head = ("labels", "random, macro F1", "suggested", "suggested better by", "spreading alone better by")
    return grid(head, rows) + f"\n\nOver {len(found)} seeds; logistic regression on frozen features."


def _told(values: list[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.1f}" if np.isnan(half) else f"{mean:.1f} ± {half:.1f}"


SUGGEST = Table("Labels chosen by the model or at random", _jobs, _write)
