"""metrics.json of a validation: values, intervals over patients, folds, calibration, threshold, chance.

Everything is measured on out-of-fold predictions (repeat, fold, slide_id, patient_id, outcome, prediction columns).
A metric of several repeats is the mean over them; its interval draws patients, each with all slides and repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from wsi_pipeline.cohort.table_words import in_order
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.tasks.task import Task
from wsi_pipeline.mil.training.seeding import sub_seed
from wsi_pipeline.mil.validation.baselines import chance_values, permutation_test
from wsi_pipeline.mil.validation.classification_report import calibration_json, per_class, threshold_json
from wsi_pipeline.statistics.class_metrics import to_scored
from wsi_pipeline.statistics.estimates import LEVEL, Resampler
from wsi_pipeline.statistics.metric_words import metric_words
from wsi_pipeline.wording import counted

Json = dict[str, Any]

FEW_PATIENTS = 10
"""With fewer patients of a class, or in all, intervals are rough."""


def validation_metrics(
    task: Task, predictions: pd.DataFrame, facts: Sequence[Json], spec: MilSpec, warnings: Sequence[str], *, fixed: bool
) -> Json:
    """The content of metrics.json, without what only the stage knows (digest, encoder, left_out).

    facts     one object a fold: repeat, fold, and what is to be said of it; `threshold` where one was chosen
    warnings  sentences to put before those about the metrics
    fixed     the predictions are of a fixed test part, not of folds
    """
    resampler = Resampler(predictions["patient_id"], spec.bootstrap, sub_seed(spec.seed, 2, 0))
    repeats = [frame.reset_index(drop=True) for _, frame in predictions.groupby("repeat", sort=True)]
    pooled, by_repeat = pooled_estimates(task, predictions, repeats, resampler)
    told = [*warnings, *metric_warnings(task, predictions, pooled, spec.bootstrap)]
    found = {
        "task": task.name,
        "bag": spec.bag,
        **task.details(repeats[0]),
        **({"n_slides": len(repeats[0])} if spec.bag == "slide" else {}),
        "n_patients": resampler.n,
        "interval": {
            "level": LEVEL,
            "unit": "patient",
            "resamples": spec.bootstrap,
            "method": f"percentile bootstrap of {'test' if fixed else 'pooled out-of-fold'} predictions"
            + (f", mean of {len(repeats)} repeats" if len(repeats) > 1 else ""),
        },
        "pooled": pooled,
        "folds": [_fold_json(task, predictions, fact) for fact in facts],
        "repeats": by_repeat,
        "chance": chance_values(task, repeats[0]),
        "permutation": permutation_test(task, repeats, spec.permutations, sub_seed(spec.seed, 2, 1)),
        "warnings": told,
    }
    if task.classes:
        scored = to_scored(predictions, found["classes"])
        found |= {"per_class": per_class(predictions, scored, found["classes"], resampler)}
        found |= {"calibration": calibration_json(scored, found["classes"], resampler)}
        found |= threshold_json(predictions, found["classes"], facts, resampler)
    return found


def pooled_estimates(
    task: Task, predictions: pd.DataFrame, repeats: Sequence[pd.DataFrame], resampler: Resampler
) -> tuple[dict[str, Json], dict[str, Json]]:
    """Every metric with its interval; and its mean and standard deviation over the repeats."""
    scores = [task.score(frame) for frame in repeats]
    numbers = sorted(predictions["repeat"].unique())
    parts = [
        ((predictions["repeat"] == number).to_numpy(), partial(task.resampled, frame))
        for number, frame in zip(numbers, repeats, strict=True)
    ]
    samples = resampler.samples(parts)
    pooled, spread = {}, {}
    for name in scores[0]:
        values = [score[name] for score in scores if score[name] is not None]
        mean = float(np.mean(values)) if len(values) == len(scores) else None  # type: ignore[arg-type]
        pooled[name] = resampler.estimate(mean, samples[name])
        deviation = float(np.std(values, ddof=1)) if mean is not None and len(values) > 1 else None  # type: ignore[arg-type]
        spread[name] = {"mean": mean, "sd": deviation, "n": len(values), "unit": "repeat"}
    return pooled, spread


def _fold_json(task: Task, predictions: pd.DataFrame, fact: Json) -> Json:
    rows = (predictions["repeat"] == fact["repeat"]) & (predictions["fold"] == fact["fold"])
    tested = predictions[rows].reset_index(drop=True)
    return {**fact, "n_test_patients": int(tested["patient_id"].nunique()), "metrics": task.score(tested)}


def metric_warnings(task: Task, predictions: pd.DataFrame, pooled: dict[str, Json], resamples: int) -> list[str]:
    """Sentences about what is undefined or rough."""
    told = []
    undefined = [metric_words(name) for name, estimate in pooled.items() if estimate["value"] is None]
    if undefined:
        told.append(f"Undefined on the test slides: {', '.join(undefined)}{_why(task, predictions)}.")
    most = max((e["n_undefined"] for e in pooled.values() if e["value"] is not None), default=0)
    if most:
        told.append(f"{most} of {resamples} bootstrap resamples lacked a class or varied in nothing and were skipped.")
    n = predictions["patient_id"].nunique()
    if task.classes:
        counts = predictions.groupby("label")["patient_id"].nunique()
        for name, count in ((name, counts[name]) for name in in_order(counts.index) if counts[name] < FEW_PATIENTS):
            told.append(
                f"Only {counted(count, 'patient')} of class {name} tested: intervals are rough, and one "
                f"patient moves the sensitivity for {name} by {1 / count:.2f}."
            )
    elif n < 2 * FEW_PATIENTS:
        told.append(f"Only {n} patients tested: intervals are rough.")
    return told


def _why(task: Task, predictions: pd.DataFrame) -> str:
    if not task.classes:
        return ""
    found = set(predictions["label"].astype(str))
    absent = [name for name in task.classes if name not in found]
    return f" (no slide of class {' or '.join(absent)})" if absent else ""
