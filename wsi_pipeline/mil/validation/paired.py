"""Compare two validations of the same patients: differences of metrics, with intervals and p-values.

All metrics by a paired bootstrap (each resample draws the same patients for both; mean over repeats); the area under
the ROC curve of two classes also by DeLong's test. Both take the trained models as given: the intervals do not include
the variation over folds and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.classification import ClassEvaluation
from wsi_pipeline.mil.tasks.task import Evaluation, Task
from wsi_pipeline.statistics.bootstrap import Samples, Scored, bootstrap_mean, interval
from wsi_pipeline.statistics.delong import delong, difference
from wsi_pipeline.statistics.estimates import LEVEL
from wsi_pipeline.statistics.metric_words import LOWER_IS_BETTER, metric_words, p_words
from wsi_pipeline.wording import counted, listed

Json = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Validated:
    """One side of a comparison: the task and its predictions (slide_id, patient_id, repeat, fold, outcome, ...).

    Without slide_id each row is a patient.
    """

    task: Task
    predictions: pd.DataFrame

    def repeats(self) -> list[pd.DataFrame]:
        """The predictions of each repeat, rows in the order of slide_id."""
        frame = self.predictions if "repeat" in self.predictions else self.predictions.assign(repeat=0)
        key = "slide_id" if "slide_id" in frame else "patient_id"
        ordered = frame.assign(slide_id=frame[key].astype(str)).sort_values(["repeat", "slide_id"])
        return [part.reset_index(drop=True) for _, part in ordered.groupby("repeat", sort=True)]


def compare(first: Validated, second: Validated, *, resamples: int = 2000, seed: int = 0) -> Json:
    """Difference of the second from the first, as JSON:

    {task, n_patients, n_slides, repeats: [of the first, of the second], same_folds, interval: {level, unit,
    resamples, method}, metrics: {name: {a, b, difference, low, high, p_value, n_undefined, unit, n, better}},
    delong?: {class, a, b, difference, low, high, p_value, unit, n}}; `better` is "a", "b" or null.

    Raises MilError naming what differs, unless both have the same patients, slides, outcomes and task.
    """
    a, b = first.repeats(), second.repeats()
    check_paired(first.task, a, second.task, b)
    number = pd.factorize(a[0]["patient_id"].astype(str), sort=True)[0].astype(np.int64)
    n = int(number.max()) + 1
    sides = [[side.task.evaluate(frame) for frame in frames] for side, frames in ((first, a), (second, b))]
    drawn = [bootstrap_mean([(number, each.resampled) for each in side], resamples, seed) for side in sides]
    values = [_means(side) for side in sides]
    found: Json = {
        "task": first.task.name,
        "n_patients": n,
        "n_slides": len(a[0]),
        "repeats": [len(a), len(b)],
        "same_folds": _same_folds(a, b),
        "interval": {
            "level": LEVEL,
            "unit": "patient",
            "resamples": resamples,
            "method": "paired percentile bootstrap",
        },
        "metrics": _differences(first.task, values, drawn, n),
    }
    if len(classes := first.task.to_json().get("classes", ())) == 2:
        scored = [[each.scored for each in side if isinstance(each, ClassEvaluation)] for side in sides]
        found["delong"] = _delong(scored[0], scored[1], str(classes[1]), number)
    return found


def check_paired(task: Task, a: Sequence[pd.DataFrame], other: Task, b: Sequence[pd.DataFrame]) -> None:
    """Raise MilError naming what differs, unless both have the same task, slides, patients and outcomes."""
    if task.name != other.name or task.to_json().get("classes") != other.to_json().get("classes"):
        raise MilError(f"the two do not predict the same: {_task_words(task)}, and {_task_words(other)}")
    left, right = a[0].set_index("slide_id"), b[0].set_index("slide_id")
    only = [sorted(set(x.index) - set(y.index)) for x, y in ((left, right), (right, left))]
    if any(only):
        extra = [f"only {name} has {listed(slides)}" for name, slides in zip("AB", only, strict=True) if slides]
        raise MilError(
            f"the two were not tested on the same slides: {'; '.join(extra)}",
            todo="Train both on the same slides (--only, or the same CSV), then compare.",
        )
    for column in ("patient_id", *task.columns):
        differs = (left[column].astype(str) != right.loc[left.index, column].astype(str)).to_numpy()
        if differs.any():
            slide = left.index[differs][0]
            raise MilError(
                f"{column} differs for {counted(int(differs.sum()), 'slide')}: {slide} has {left[column][slide]} in A "
                f"and {right[column][slide]} in B",
                todo="Train both with the same CSV, then compare.",
            )


def sentence(found: Mapping[str, Any], names: tuple[str, str] = ("A", "B"), metric: str | None = None) -> str:
    """`B's AUROC is higher by 0.03 [-0.01, 0.07], DeLong p = 0.21, 84 patients`.

    metric   None: the first one. AUROC gets DeLong's interval and p-value if there are any
    """
    name = metric or next(iter(found["metrics"]))
    entry, by = found["metrics"][name], "bootstrap"
    if name == "auroc" and found.get("delong", {}).get("p_value") is not None:
        entry, by = found["delong"], "DeLong"
    patients = counted(found["n_patients"], "patient")
    if entry["difference"] is None:
        return f"{metric_words(name)} cannot be compared: undefined for one of the two, {patients}"
    more = entry["difference"]
    if abs(more) < 5e-13:
        return f"{names[1]}'s {metric_words(name)} equals {names[0]}'s, {patients}"
    bounds = "" if entry["low"] is None else f" [{entry['low']:.2f}, {entry['high']:.2f}]"
    chance = "" if entry["p_value"] is None else f", {by} {p_words(entry['p_value'])}"
    word = "higher" if more > 0 else "lower"
    if more < 0 and entry["low"] is not None:
        bounds = f" [{-entry['high']:.2f}, {-entry['low']:.2f}]"
    return f"{names[1]}'s {metric_words(name)} is {word} by {abs(more):.2f}{bounds}{chance}, {patients}"


def _differences(task: Task, values: Sequence[Mapping[str, float | None]], drawn: Sequence[Samples], n: int) -> Json:
    """Differences of the metrics that both have (a Cox model has no Brier score), the headline first."""
    names = [*task.headline, *(name for name in values[0] if name not in task.headline)]
    both = [name for name in names if all(name in side for side in values)]
    return {name: _difference_json(task, name, values, drawn, n) for name in both}


def _difference_json(
    task: Task, name: str, values: Sequence[Mapping[str, float | None]], drawn: Sequence[Samples], n: int
) -> Json:
    a, b = values[0][name], values[1][name]
    found: Json = {"a": a, "b": b, "difference": None, "low": None, "high": None, "p_value": None, "better": None}
    samples = drawn[1][name] - drawn[0][name]
    if a is not None and b is not None:
        found["difference"] = b - a
        if abs(b - a) > 1e-12:
            found["better"] = "b" if (b > a) == (name not in LOWER_IS_BETTER) else "a"
        if n > 1:
            bounds = interval(samples, LEVEL)
            found |= {"low": bounds.low, "high": bounds.high, "p_value": _bootstrap_p(samples)}
    return {**found, "n_undefined": int(np.isnan(samples).sum()), "unit": "patient", "n": n}


def _bootstrap_p(samples: Floats) -> float | None:
    """Two-sided p-value: twice the fraction of resamples on the rarer side of zero, at most 1.

    None if all resamples are equal.
    """
    defined = samples[~np.isnan(samples)]
    if len(defined) == 0 or np.ptp(defined) == 0:
        return None
    rarer = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (1 + rarer) / (1 + len(defined))))


def _delong(a: Sequence[Scored], b: Sequence[Scored], positive: str, patient: NDArray[np.int64]) -> Json:
    """DeLong's test of the areas of both, each the mean over its repeats; `positive` names the second class."""
    truth = a[0].truth == 1
    if truth.all() or not truth.any():
        return {}
    # A mean over repeats stays the same if each repeat is taken twice: so both get the same number of repeats.
    times = math.lcm(len(a), len(b))
    both = np.stack([[one.probabilities[:, 1] for one in [*side] * (times // len(side))] for side in (a, b)])
    areas = delong(truth, both, patient)
    found = difference(areas, 0, 1, LEVEL)
    return {
        "class": positive, "a": float(areas.values[0]), "b": float(areas.values[1]), "difference": found.value,
        "low": found.low, "high": found.high, "p_value": found.p_value, "unit": "patient", "n": areas.n_patients,
    }  # fmt: skip


def _means(repeats: Sequence[Evaluation]) -> dict[str, float | None]:
    """Each metric's mean over the repeats; None if it is undefined in one of them."""
    scores = [repeat.values() for repeat in repeats]
    columns = {name: [score[name] for score in scores] for name in scores[0]}
    return {
        name: None if any(value is None for value in values) else float(np.mean(np.array(values, np.float64)))
        for name, values in columns.items()
    }


def _same_folds(a: Sequence[pd.DataFrame], b: Sequence[pd.DataFrame]) -> bool:
    return len(a) == len(b) and all(
        (x["fold"].to_numpy() == y["fold"].to_numpy()).all() for x, y in zip(a, b, strict=True)
    )


def _task_words(task: Task) -> str:
    classes = task.to_json().get("classes")
    return task.name + (f" of {', '.join(map(str, classes))}" if classes else "")
