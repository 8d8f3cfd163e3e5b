"""Few labels: each method trained on 5, 20 or 100 nuclei a class, with as many to choose the epoch by."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.tuning.job import Job
from benchmarks.tuning.plans import TEXTS, Plan, grid, told
from benchmarks.tuning.queue import Results

LABELS = {5: 40, 20: 30, 100: 15}
"""Labels a class, and epochs: more where an epoch has few steps."""
METHODS = ("linear", "lora", "full", "pathotune")
TEST = 1000


def labels_jobs(plan: Plan) -> list[Job]:
    """Each method with each number of labels."""
    return [job for each in LABELS for method in METHODS for job in _of(plan, method, each)]


def labels_table(plan: Plan, results: Results) -> str:
    """Macro F1 by method and labels a class."""
    rows = [[method, *(told(results, _of(plan, method, each), "macro_f1") for each in LABELS)] for method in METHODS]
    return grid(("method", *(f"{each} a class" for each in LABELS)), rows)


def _of(plan: Plan, method: str, each: int) -> list[Job]:
    texts = [TEXTS["crc"]]
    jobs = plan.over_seeds(f"crc@{each}", method, texts=texts)
    return [replace(job, sizes=(4 * each, 4 * each, TEST), epochs=LABELS[each]) for job in jobs]
