"""metrics.json of a validation: values, intervals over patients, folds, calibration, threshold, chance.

Everything is measured on out-of-fold predictions (repeat, fold, slide_id, patient_id, outcome, prediction columns).
With several repeats a metric is the mean over them; its bootstrap draws patients with all their slides and repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.table_words import in_order
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.tasks.classification import ClassEvaluation
from wsi_pipeline.mil.tasks.task import Evaluation, Task
from wsi_pipeline.mil.training.seeding import sub_seed
from wsi_pipeline.mil.validation.classification_report import calibration_json, per_class, threshold_json
from wsi_pipeline.statistics.estimates import LEVEL, Resampler, width_warnings
from wsi_pipeline.statistics.metric_words import metric_words
from wsi_pipeline.statistics.permutation import permutation_test
from wsi_pipeline.wording import counted

Json = dict[str, Any]

FEW_PATIENTS = 10
"""With fewer patients per class intervals are imprecise; without classes, with fewer than twice as many in total."""

SAYS = (
    "fraction of label permutations across patients that fit the out-of-fold predictions at least as well as the true "
    "labels do; models are not retrained, and what the predictions rest on (tumour, stain, hospital) is not tested"
)

Part = tuple[NDArray[np.bool_], Evaluation]
"""A mask (n,) of rows, and the evaluation of these rows."""


def validation_metrics(
    task: Task, predictions: pd.DataFrame, facts: Sequence[Json], spec: MilSpec, warnings: Sequence[str], *, fixed: bool
) -> Json:
    """The content of metrics.json, without what only the stage knows (digest, encoder, left_out).

    facts     one object per fold: repeat, fold, and what to report of it; `threshold` if one was chosen
    warnings  sentences to put before those about the metrics
    fixed     whether the predictions are of a fixed test part, not of folds
    """
    every, repeat = task.evaluate(predictions), predictions["repeat"].to_numpy()
    parts = [(rows, every.take(rows)) for rows in (repeat == number for number in np.unique(repeat))]
    first = predictions[parts[0][0]].reset_index(drop=True)
    resampler = Resampler(predictions["patient_id"], spec.bootstrap, sub_seed(spec.seed, 2, 0))
    pooled, by_repeat = pooled_estimates(parts, resampler)
    found = {
        "task": task.name,
        "bag": spec.bag,
        **parts[0][1].details(),
        **({"n_slides": len(first)} if spec.bag == "slide" else {}),
        "n_patients": resampler.n,
        "interval": {
            "level": LEVEL,
            "unit": "patient",
            "resamples": spec.bootstrap,
            "method": f"percentile bootstrap of {'test' if fixed else 'pooled out-of-fold'} predictions"
            + (f", mean of {len(parts)} repeats" if len(parts) > 1 else ""),
        },
        "pooled": pooled,
        "folds": [_fold_json(every, predictions, fact) for fact in facts],
        "repeats": by_repeat,
        "chance": parts[0][1].chance(),
        "permutation": permutation_json(task, first, [own for _, own in parts], spec, SAYS),
        "warnings": [*warnings, *metric_warnings(task, predictions, pooled, spec.bootstrap)],
    }
    if isinstance(every, ClassEvaluation):
        found |= class_json(predictions, every, resampler)
        found |= threshold_json(predictions, every.scored, every.classes, facts, resampler)
    return found


def class_json(predictions: pd.DataFrame, evaluation: ClassEvaluation, resampler: Resampler) -> Json:
    """The keys `per_class` and `calibration`."""
    scored, classes = evaluation.scored, evaluation.classes
    return {
        "per_class": per_class(predictions, scored, classes, resampler),
        "calibration": calibration_json(scored, classes, resampler),
    }


def permutation_json(
    task: Task, rows: pd.DataFrame, repeats: Sequence[Evaluation], spec: MilSpec, says: str
) -> Json | None:
    """The permutation test of `Task.selection`; None if it was not made, see `permutation_test`.

    rows   of each of the repeats: patient_id and the outcome columns
    says   what the p-value means, in a sentence
    """
    patient = pd.factorize(rows["patient_id"].astype(str))[0].astype(np.int64)
    outcome = np.array(rows.groupby(list(task.columns), sort=False).ngroup(), dtype=np.int64)
    scores = [repeat.permuted() for repeat in repeats]
    found = permutation_test(scores, patient, outcome, spec.permutations, sub_seed(spec.seed, 2, 1))
    n = int(patient.max()) + 1
    return found and {**found, "metric": task.headline[0], "unit": "patient", "n_patients": n, "says": says}


def pooled_estimates(parts: Sequence[Part], resampler: Resampler) -> tuple[dict[str, Json], dict[str, Json]]:
    """Every metric with its interval; and its mean and standard deviation over the parts, one per repeat."""
    scores = [own.values() for _, own in parts]
    samples = resampler.samples([(rows, own.resampled) for rows, own in parts])
    pooled, spread = {}, {}
    for name in scores[0]:
        values = [score[name] for score in scores if score[name] is not None]
        mean = float(np.mean(values)) if len(values) == len(scores) else None  # type: ignore[arg-type]
        pooled[name] = resampler.estimate(mean, samples[name])
        deviation = float(np.std(values, ddof=1)) if mean is not None and len(values) > 1 else None  # type: ignore[arg-type]
        spread[name] = {"mean": mean, "sd": deviation, "n": len(values), "unit": "repeat"}
    return pooled, spread


def _fold_json(every: Evaluation, predictions: pd.DataFrame, fact: Json) -> Json:
    rows = ((predictions["repeat"] == fact["repeat"]) & (predictions["fold"] == fact["fold"])).to_numpy()
    n = int(predictions["patient_id"][rows].nunique())
    return {**fact, "n_test_patients": n, "metrics": every.take(rows).values()}


def metric_warnings(task: Task, predictions: pd.DataFrame, pooled: dict[str, Json], resamples: int) -> list[str]:
    """Warnings about undefined metrics and imprecise intervals."""
    notes = []
    undefined = [metric_words(name) for name, estimate in pooled.items() if estimate["value"] is None]
    if undefined:
        notes.append(f"Undefined on the test slides: {', '.join(undefined)}{_why(task, predictions)}.")
    most = max((e["n_undefined"] for e in pooled.values() if e["value"] is not None), default=0)
    if most:
        notes.append(f"{most} of {resamples} bootstrap resamples lacked a class or were constant and were skipped.")
    n = predictions["patient_id"].nunique()
    notes += width_warnings(pooled, counted(n, "patient"))
    if task.classes:
        counts = predictions.groupby("label")["patient_id"].nunique()
        for name, count in ((name, counts[name]) for name in in_order(counts.index) if counts[name] < FEW_PATIENTS):
            notes.append(
                f"Only {counted(count, 'patient')} of class {name} tested: intervals are imprecise, and one "
                f"patient changes the sensitivity for {name} by {1 / count:.2f}."
            )
    elif n < 2 * FEW_PATIENTS:
        notes.append(f"Only {counted(n, 'patient')} tested: intervals are imprecise.")
    return notes


def _why(task: Task, predictions: pd.DataFrame) -> str:
    if not task.classes:
        return ""
    found = set(predictions["label"].astype(str))
    absent = [name for name in task.classes if name not in found]
    return f" (no slide of class {' or '.join(absent)})" if absent else ""
