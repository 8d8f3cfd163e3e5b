"""Few labels: each method trained on 1, 5, 20 or 100 nuclei a class, with as many to choose the epoch by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.tuning.job import Job
from benchmarks.tuning.paired import ahead
from benchmarks.tuning.plans import TEXTS, Plan, Table, grid, told
from benchmarks.tuning.queue import Results

LABELS = {1: 40, 5: 40, 20: 30, 100: 15}
"""Labels a class, and epochs: more where an epoch has few steps."""
METHODS = ("linear", "lora", "full", "pathotune")
TEST = 1000


def _rows(plan: Plan) -> dict[str, list[Job]]:
    return {f"{each} a class, {method}": _of(plan, method, each) for each in LABELS for method in METHODS}


def _jobs(plan: Plan) -> list[Job]:
    return [job for seed in plan.seeds for own in _rows(plan).values() for job in own if job.seed == seed]


def _table(plan: Plan, results: Results) -> str:
    """Macro F1 by method and labels a class, then how much better PathoTune is."""
    ours = {each: _of(plan, "pathotune", each) for each in LABELS}
    rows = [[method, *(told(results, _of(plan, method, each), "macro_f1") for each in LABELS)] for method in METHODS]
    rows += [
        [f"pathotune better than {method} by", *_gaps(plan, results, ours, method)]
        for method in METHODS if method != "pathotune"
    ]  # fmt: skip
    return grid(("method", *(f"{each} a class" for each in LABELS)), rows)


def _gaps(plan: Plan, results: Results, ours: dict[int, Sequence[Job]], method: str) -> list[str]:
    return [ahead(results, ours[each], _of(plan, method, each), "macro_f1") or "not run" for each in LABELS]


def _of(plan: Plan, method: str, each: int) -> list[Job]:
    jobs = plan.over_seeds(f"crc@{each}", method, texts=[TEXTS["crc"]])
    return [replace(job, sizes=(4 * each, 4 * each, TEST), epochs=LABELS[each]) for job in jobs]


LABEL_TABLE = Table("Few labels a class", _jobs, _table, _rows)
