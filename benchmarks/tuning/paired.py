"""PathoTune beside its strongest rivals on the same splits: differences with intervals, and which rows they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.tuning.job import Job
from benchmarks.tuning.plans import Plan, grid, interval, told
from benchmarks.tuning.queue import Results

SEEDS = tuple(range(8))
SETS = ("crc", "ucsb")
RIVALS = ("lora", "full")


def paired_jobs(plan: Plan) -> list[Job]:
    """Each method on each set with all of SEEDS, whatever the plan's seeds are."""
    return [job for dataset in SETS for method in ("pathotune", *RIVALS) for job in _over(plan, dataset, method)]


def paired_table(plan: Plan, results: Results) -> str:
    """Macro F1 and AUROC of each method, and how much better PathoTune is."""
    rows = []
    for dataset in SETS:
        ours = _over(plan, dataset, "pathotune")
        for method in ("pathotune", *RIVALS):
            theirs = _over(plan, dataset, method)
            scored = [told(results, theirs, metric) for metric in ("macro_f1", "auroc")]
            gaps = [ahead(results, ours, theirs, metric) for metric in ("macro_f1", "auroc")]
            rows.append([dataset, method, *scored, *gaps])
    head = ("set", "method", "macro F1", "AUROC", "PathoTune better by, F1", "AUROC")
    return grid(head, rows)


def ahead(results: Results, ours: Sequence[Job], theirs: Sequence[Job], score: str) -> str:
    """How much better some trainings are than others on the same splits: mean and interval of the differences."""
    pairs = [(results.get(a), results.get(b)) for a, b in zip(ours, theirs, strict=True)]
    gaps = [100 * (a[score] - b[score]) for a, b in pairs if a and b]
    if not gaps or ours == theirs:
        return ""
    mean, half = interval(gaps)
    return f"{mean:.1f} ± {half:.1f}" if len(gaps) > 1 else f"{mean:.1f}"


def _over(plan: Plan, dataset: str, method: str) -> list[Job]:
    return replace(plan, seeds=SEEDS).over_seeds(dataset, method)
