"""What the tables of the tuning benchmark share: sizes, seeds, learning rates, intervals over seeds, Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.tuning.job import Job
from benchmarks.tuning.queue import Results
from pathotune.adapters import METHODS

Json = dict[str, Any]
SEARCH_SEED = 100
DESIGN_SEEDS = (100, 101, 102, 103)
RATES: Mapping[str, Sequence[float]] = {
    "linear": (1e-2, 3e-2, 1e-1),
    "vpt-shallow": (1e-2, 3e-2, 1e-1),
    "vpt-deep": (1e-2, 3e-2, 1e-1),
    "lora": (1e-3, 3e-3, 1e-2),
    "full": (2e-4, 5e-4, 1e-3),
    "pathotune": (3e-3, 1e-2, 3e-2),
}
"""Three learning rates for each method: the same budget for all."""
PROBED = (0, 1, 2)
"""Seeds whose models are also tested under another stain and on another organ."""
TEXTS = {
    "crc": {"stain": "H&E", "organ": "human colon", "task": "nucleus classification"},
    "ucsb": {"stain": "H&E", "organ": "human breast", "task": "tumour classification"},
}
TEMPLATES = {
    "default": "{stain} stained histology image of {organ}. The task is {task}. The classes are {classes}.",
    "paraphrase": "A micrograph of {organ}, {stain} stain, to be sorted into {classes} for {task}.",
    "other paraphrase": "Decide for this {stain} picture from {organ} which of these it shows: {classes} ({task}).",
    "short": "{organ}: {classes}",
    "classes alone": "{classes}",
    "long": "This is a small patch cut from a whole-slide image of {organ}, stained with {stain} and scanned at high "
    "magnification. A pathologist is asked to do {task}. Each patch shows exactly one of the following classes, which "
    "differ in nuclear size, chromatin, cytoplasm and surrounding stroma: {classes}.",
    "nothing said": "image",
    "wrong organ": "{stain} stained histology image of mouse retina. The task is {task}. The classes are {classes}.",
    "wrong stain": "Silver stained histology image of {organ}. The task is {task}. The classes are {classes}.",
    "shuffled words": "classes image The are task of {classes}. histology {organ} {task} is stained {stain} The.",
}


@dataclass(frozen=True)
class Size:
    """How large the trainings of a table are: most patches to train, validate, test; epochs; images in a step."""

    sizes: tuple[int, int, int]
    epochs: int
    batch: int = 32


SIZES = {
    "quick": Size((400, 200, 400), 2),
    "small": Size((2000, 600, 2000), 5),
    "standard": Size((4000, 1000, 4000), 8),
    "full": Size((100_000, 2000, 100_000), 10),
}


LEAST_EPOCHS = {"wbc": 20, "wbc-rapid": 20, "wbc-romanowsky": 40, "wbc-questions": 20, "breast": 10}
"""Sets of a few hundred images: five epochs would be some dozen steps, in which no method learns what it can."""


@dataclass(frozen=True)
class Table:
    """One table: `jobs` says what must have run, `write` turns results into Markdown.

    rows   the same jobs by the name of their row, for `--only`; None: jobs are chosen by set, method and variant
    """

    title: str
    jobs: Callable[[Plan], list[Job]]
    write: Callable[[Plan, Results], str]
    rows: Callable[[Plan], Mapping[str, list[Job]]] | None = None

    def only(self, plan: Plan, words: Sequence[str]) -> list[Job]:
        """The jobs of the rows whose name contains one of the words; all jobs without words."""
        if not words:
            return self.jobs(plan)
        if self.rows is not None:
            return [job for name, own in self.rows(plan).items() for job in own if any(word in name for word in words)]
        return [job for job in self.jobs(plan) if {job.dataset, job.method, job.variant} & set(words)]


@dataclass(frozen=True)
class Plan:
    """What all tables share: sizes, seeds, and the learning rate of each method."""

    size: Size
    seeds: tuple[int, ...]
    rates: Mapping[str, float]

    def job(self, dataset: str, method: str, seed: int, **more: Any) -> Job:
        """A training of this plan."""
        given = {"texts": [TEXTS[dataset]] if dataset in TEXTS else [], **more}
        options = {"batch": self.size.batch, **given.pop("options", {})}
        rate = given.pop("learning_rate", self.rates.get(method, 1e-3))
        probed = method not in ("colour", "vpt-shallow", "pathotune") and seed in PROBED
        if dataset == "crc" and probed and not given.get("fields"):
            given.setdefault("probes", not given.get("variant") and given.get("fold") is None)
        epochs = self.size.epochs if self.size == SIZES["quick"] else self.epochs_on(dataset)
        return Job(dataset, method, seed, self.size.sizes, epochs, rate, options=options, **given)

    def epochs_on(self, dataset: str) -> int:
        """Epochs of the size, more on a small set."""
        return max(self.size.epochs, LEAST_EPOCHS.get(dataset, 0))

    def over_seeds(self, dataset: str, method: str, **more: Any) -> list[Job]:
        """The same training with each seed."""
        return [self.job(dataset, method, seed, **more) for seed in self.seeds]


def best_rates(plan: Plan, results: Results) -> dict[str, float]:
    """Learning rate of the best validation macro F1 in the search; the library's own where it has not run."""
    found = {}
    for method, rates in RATES.items():
        rows = [(results.get(job), rate) for job, rate in zip(search_of(plan, method), rates, strict=True)]
        scored = [(result["validation_macro_f1"], rate) for result, rate in rows if result]
        found[method] = max(scored)[1] if scored else METHODS[method].learning_rate
    return found


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % interval by Student's t; NaN for one value."""
    array = np.array(list(values), float)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    return float(array.mean()), float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))


def told(results: Results, jobs: Sequence[Job], *path: str) -> str:
    """`mean ± half-width` of one number over jobs, times 100, and over how many where some have not run."""
    found = [result for result in map(results.get, jobs) if result]
    if not found:
        return "not run"
    values = []
    for result in found:
        value: Any = result
        for step in path:
            value = value[step]
        values.append(100 * value)
    return _mean(values) + ("" if len(found) == len(jobs) else f" (n = {len(found)})")


def _mean(values: Iterable[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.1f}" if np.isnan(half) else f"{mean:.1f} ± {half:.1f}"


def common(results: Results, rows: Sequence[Sequence[Job]]) -> tuple[list[list[Job]], str]:
    """Rows of a table cut down to the seeds that all of them have, and a sentence on how many those are.

    Seeds differ more than designs do, so that a mean over three cannot stand beside one seed. A row that has not run
    at all is left as it is.
    """
    begun = [row for row in rows if any(results.get(job) for job in row)]
    seeds = set.intersection(*({job.seed for job in row if results.get(job)} for row in begun)) if begun else set()
    cut = [[job for job in row if job.seed in seeds] or list(row) for row in rows]
    said = f"Over the {len(seeds)} seeds" if len(seeds) > 1 else "Over the one seed"
    return cut, f"\n\n{said} that every row run so far has." if seeds else ""


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def search_of(plan: Plan, method: str) -> list[Job]:
    """The trainings that search the learning rate of a method, at the small size unless the plan is quicker."""
    small = replace(plan, size=SIZES["quick"] if plan.size == SIZES["quick"] else SIZES["small"])
    return [small.job("crc", method, SEARCH_SEED, learning_rate=rate) for rate in RATES[method]]
