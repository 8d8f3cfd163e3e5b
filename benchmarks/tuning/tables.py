"""The tables: which trainings each needs, and how it is written. Learning rates are those `search` found best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, roc_auc_score

from benchmarks.tuning.comparisons.label_choice import SUGGEST
from benchmarks.tuning.comparisons.row_tables import LARGER_TABLE, PART_TABLE, RIVAL_TABLE, SET_TABLE
from benchmarks.tuning.comparisons.slide_tuning import SLIDE_PROMPTS
from benchmarks.tuning.comparisons.two_tasks import TWO_TASKS
from benchmarks.tuning.job import Job
from benchmarks.tuning.labels import LABEL_TABLE
from benchmarks.tuning.paired import ahead, paired_jobs, paired_table
from benchmarks.tuning.plans import (
    DESIGN_SEEDS,
    RATES,
    SIZES,
    TEMPLATES,
    TEXTS,
    Plan,
    Table,
    _mean,
    common,
    grid,
    search_of,
    told,
)
from benchmarks.tuning.queue import Results
from pathotune.adapters import METHODS

Json = dict[str, Any]
FIRST = {"ttp_depth": "shallow", "vrm_input": "patches", "start": "random"}
"""Fields of the design that was the default before the search of docs/results.md."""


def _search_jobs(plan: Plan) -> list[Job]:
    return [job for method in RATES for job in search_of(plan, method)]


def _search_table(plan: Plan, results: Results) -> str:
    rows = []
    for method, rates in RATES.items():
        cells = [told(results, [job], "validation_macro_f1") for job in search_of(plan, method)]
        rows.append([method, *(f"{rate:g}: {cell}" for rate, cell in zip(rates, cells, strict=True))])
    return grid(("method", "low rate", "middle", "high"), rows)


DESIGNS: Mapping[str, Json] = {
    "default": {},
    "prompts from a third of the layers on": {"entry": 0.33},
    "features without IVP": {"ivp_read": False},
    "features with the mean patch": {"feature": "cls_mean"},
    "prompts start at random": {"start": "random"},
    "VRM of rank 8": {"vrm_rank": 8},
    "4 TVP": {"tvp_tokens": 4},
    "1 TTP": {"ttp_tokens": 1},
    "TTP at the input only": {"ttp_depth": "shallow"},
    "no TTP": {"ttp": False},
    "no IVP": {"ivp_tokens": 0},
    "first design": FIRST,
}


def _design_of(plan: Plan, fields: Json) -> list[Job]:
    small = replace(plan, size=SIZES["quick"] if plan.size == SIZES["quick"] else SIZES["small"])
    return [small.job("crc", "pathotune", seed, fields=fields) for seed in DESIGN_SEEDS]


def _design_jobs(plan: Plan) -> list[Job]:
    return [job for fields in DESIGNS.values() for job in _design_of(plan, fields)]


def _design_table(plan: Plan, results: Results) -> str:
    rows, default = [], _design_of(plan, {})
    for name, fields in DESIGNS.items():
        jobs = _design_of(plan, fields)
        better = ahead(results, jobs, default, "validation_macro_f1")
        rows.append([name, told(results, jobs, "validation_macro_f1"), better, told(results, jobs, "share")])
    return grid(("design", "validation macro F1", "better than the default by", "trained share"), rows)


METRICS = ("accuracy", "macro_f1", "auroc", "ece")


def _methods_jobs(plan: Plan) -> list[Job]:
    return [job for dataset in TEXTS for method in ("colour", *METHODS) for job in plan.over_seeds(dataset, method)]


def _methods_table(plan: Plan, results: Results) -> str:
    parts = []
    for dataset in TEXTS:
        rows = []
        for method in ("colour", *METHODS):
            jobs = plan.over_seeds(dataset, method)
            scored = [told(results, jobs, metric) for metric in METRICS]
            behind = ahead(results, plan.over_seeds(dataset, "pathotune"), jobs, "macro_f1")
            rows.append([method, *scored[:2], behind, *scored[2:], *_costs(results, jobs)])
        head = (
            "method",
            "accuracy",
            "macro F1",
            "PathoTune is better by",
            "AUROC",
            "ECE",
            "trained",
            "share",
            "adapter MB",
            "peak MB",
        )
        parts.append(f"**{dataset}**\n\n" + grid(head, rows))
    return "\n\n".join(parts)


def _costs(results: Results, jobs: Sequence[Job]) -> list[str]:
    found = [result for result in map(results.get, jobs) if result]
    if not found:
        return ["-"] * 4
    first = found[0]
    if "peak_mb" not in first:
        return ["0", "-", "-", "-"]
    return [
        f"{first['trained']:,}",
        f"{first['share']:.1%}",
        f"{first['adapter_bytes'] / 1e6:.2f}",
        f"{np.median([result['peak_mb'] for result in found]):.0f}",
    ]


def _prompts_of(plan: Plan, tvp: bool, ttp: bool, ivp: bool) -> list[Job]:
    if not ttp and not ivp:
        return plan.over_seeds("crc", "vpt-deep" if tvp else "linear")
    return plan.over_seeds("crc", "pathotune", fields=_switched(tvp, ttp, ivp))


def _switched(tvp: bool, ttp: bool, ivp: bool) -> Json:
    """Only what differs from the default, so that the full model is one job with the other tables'."""
    off = {"tvp_tokens": 0} if not tvp else {}
    return off | ({} if ttp else {"ttp": False}) | ({} if ivp else {"ivp_tokens": 0})


_GRID = tuple(product((False, True), repeat=3))


def _prompts_jobs(plan: Plan) -> list[Job]:
    return [job for switches in _GRID for job in _prompts_of(plan, *switches)]


def _prompts_table(plan: Plan, results: Results) -> str:
    rows = []
    cut, said = common(results, [_prompts_of(plan, *switches) for switches in _GRID])
    for switches, jobs in zip(_GRID, cut, strict=True):
        marks = ["yes" if on else "" for on in switches]
        rows.append([*marks, *(told(results, jobs, metric) for metric in METRICS)])
    return grid(("TVP", "TTP", "IVP", "accuracy", "macro F1", "AUROC", "ECE"), rows) + said


def _instances_jobs(plan: Plan) -> list[Job]:
    return [*plan.over_seeds("crc", "pathotune"), *plan.over_seeds("crc", "pathotune", variant="free")]


def _instances_table(plan: Plan, results: Results) -> str:
    own, free = plan.over_seeds("crc", "pathotune"), plan.over_seeds("crc", "pathotune", variant="free")
    (own, free), said = common(results, [own, free])
    asked: list[tuple[str, list[Job], tuple[str, ...]]] = [
        ("own image", own, ()),
        ("another image's, at test", own, ("at_test", "shuffled")),
        ("two free tokens, trained so", free, ()),
    ]
    rows = [[name, *(told(results, jobs, *path, metric) for metric in METRICS)] for name, jobs, path in asked]
    return grid(("instance tokens", "accuracy", "macro F1", "AUROC", "ECE"), rows) + said


def _template_of(plan: Plan, template: str) -> list[Job]:
    fields = {} if template == "default" else {"template": TEMPLATES[template]}
    return plan.over_seeds("crc", "pathotune", fields=fields)


def _templates_jobs(plan: Plan) -> list[Job]:
    return [job for template in TEMPLATES for job in _template_of(plan, template)]


def _templates_table(plan: Plan, results: Results) -> str:
    cut, said = common(results, [_template_of(plan, name) for name in TEMPLATES])
    asked = zip(TEMPLATES, cut, strict=True)
    rows = [[name, told(results, jobs, "accuracy"), told(results, jobs, "macro_f1")] for name, jobs in asked]
    return grid(("template", "accuracy", "macro F1"), rows) + said


COUNTS = (0, 1, 2, 4, 8, 16)


def _counts_of(plan: Plan, count: int) -> list[Job]:
    return plan.over_seeds("crc", "pathotune", fields={} if count == 2 else {"ivp_tokens": count})


def _counts_jobs(plan: Plan) -> list[Job]:
    return [job for count in COUNTS for job in _counts_of(plan, count)]


def _counts_table(plan: Plan, results: Results) -> str:
    cut, said = common(results, [_counts_of(plan, count) for count in COUNTS])
    rows = [
        [str(count), *(told(results, jobs, metric) for metric in METRICS)]
        for count, jobs in zip(COUNTS, cut, strict=True)
    ]
    return grid(("IVP tokens", "accuracy", "macro F1", "AUROC", "ECE"), rows) + said


_SHIFTED = ("linear", "vpt-deep", "lora", "full", "pathotune")
_JITTER = 0.2


def _shift_of(plan: Plan, method: str, jitter: float) -> list[Job]:
    return plan.over_seeds("crc", method, options={"stain_jitter": jitter} if jitter else {}, probes=True)


def _shift_jobs(plan: Plan) -> list[Job]:
    return [job for method in _SHIFTED for jitter in (0.0, _JITTER) for job in _shift_of(plan, method, jitter)]


def _shift_table(plan: Plan, results: Results) -> str:
    rows = []
    for method, jitter in product(_SHIFTED, (0.0, _JITTER)):
        jobs = _shift_of(plan, method, jitter)
        paths = (
            ("macro_f1",),
            ("at_test", "ihc", "macro_f1"),
            ("at_test", "ucsb", "macro_f1"),
            ("at_test", "ucsb", "auroc"),
        )
        rows.append([method, f"{jitter:g}", *(told(results, jobs, *path) for path in paths)])
    head = ("method", "stain jitter", "CRC, H&E", "CRC, brown stain", "UCSB probe, macro F1", "UCSB probe, AUROC")
    return grid(head, rows)


def _tasks_of(plan: Plan, ttp: bool) -> list[Job]:
    from benchmarks.tuning.data import classes_of

    texts = [{**TEXTS[name], "classes": list(classes_of(name))} for name in TEXTS]
    return plan.over_seeds("both", "pathotune", texts=texts, fields={} if ttp else {"ttp": False})


def _tasks_jobs(plan: Plan) -> list[Job]:
    return [*_tasks_of(plan, True), *_tasks_of(plan, False)]


def _tasks_table(plan: Plan, results: Results) -> str:
    rows = []
    for ttp in (True, False):
        jobs = _tasks_of(plan, ttp)
        cells = [told(results, jobs, "per_task", task, metric) for task in "01" for metric in ("accuracy", "macro_f1")]
        rows.append(["with" if ttp else "without", *cells])
    return grid(("TTP", "CRC accuracy", "CRC macro F1", "UCSB accuracy", "UCSB macro F1"), rows)


def _slides_of(plan: Plan, dataset: str, seed: int) -> list[Job]:
    return [plan.job(dataset, "pathotune", seed, fold=fold) for fold in range(5)]


def _slides_jobs(plan: Plan) -> list[Job]:
    return [job for dataset in TEXTS for seed in plan.seeds for job in _slides_of(plan, dataset, seed)]


def _slides_table(plan: Plan, results: Results) -> str:
    rows = []
    for dataset in TEXTS:
        scored = [_pooled([results.get(job) for job in _slides_of(plan, dataset, seed)]) for seed in plan.seeds]
        done = [row for row in scored if row]
        for place, name in enumerate(("frozen", "tuned in the fold")):
            cells = [_mean(100 * row[place][metric] for row in done) if done else "not run" for metric in (0, 1)]
            rows.append([dataset, name, str(len(done)), *cells])
    return grid(("bags", "features", "seeds", "accuracy", "AUROC"), rows)


def _pooled(found: Sequence[Json | None]) -> list[tuple[float, float]] | None:
    """(accuracy, AUROC) over the bags of all folds, for frozen and for tuned features; None where a fold is missing."""
    if not all(found):
        return None
    values = np.array([row for result in found if result for row in result["bags"].values()])
    labels = values[:, 0]
    return [
        (float(accuracy_score(labels, values[:, k] > 0.5)), float(roc_auc_score(labels, values[:, k]))) for k in (1, 2)
    ]


TABLES = {
    "search": Table("Search: validation macro F1 of three learning rates each", _search_jobs, _search_table),
    "design": Table("Design: what the paper leaves open, on four seeds of their own", _design_jobs, _design_table),
    "methods": Table("PathoTune beside its rivals", _methods_jobs, _methods_table),
    "paired": Table("PathoTune, LoRA and full fine-tuning on eight paired seeds", paired_jobs, paired_table),
    "labels": LABEL_TABLE,
    "prompts": Table("Which prompt helps", _prompts_jobs, _prompts_table),
    "instances": Table("Do instance prompts carry the image", _instances_jobs, _instances_table),
    "templates": Table("Wording of the template", _templates_jobs, _templates_table),
    "counts": Table("How many instance prompts", _counts_jobs, _counts_table),
    "shift": Table("Another stain, another organ", _shift_jobs, _shift_table),
    "tasks": Table("One adapter over two tasks", _tasks_jobs, _tasks_table),
    "slides": Table("Whole images as bags", _slides_jobs, _slides_table),
    "suggest": SUGGEST,
    "parts": PART_TABLE,
    "sets": SET_TABLE,
    "rivals": RIVAL_TABLE,
    "larger": LARGER_TABLE,
    "two_tasks": TWO_TASKS,
    "slide_prompts": SLIDE_PROMPTS,
}
