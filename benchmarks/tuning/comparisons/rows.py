"""Tables of named rows over several sets, each compared with one row on the same splits, and over all sets together."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.tuning.job import Job
from benchmarks.tuning.paired import ahead
from benchmarks.tuning.plans import Plan, Table, grid, interval, told
from benchmarks.tuning.queue import Results

Rows = Mapping[str, Callable[[Plan, str], list[Job]]]
"""Name of a row -> its trainings on a set, one a seed."""


def row_table(title: str, sets: Sequence[str], rows: Rows, against: str, said: str = "") -> Table:
    """A table with a block for each set, and the mean over the sets if there are several.

    against   the row that all others are compared with; positive numbers mean that it is better
    said      a sentence below the table
    """

    def named(plan: Plan) -> dict[str, list[Job]]:
        return {f"{dataset} {name}": make(plan, dataset) for dataset in sets for name, make in rows.items()}

    def jobs(plan: Plan) -> list[Job]:
        every = named(plan).values()
        return [job for seed in plan.seeds for own in every for job in own if job.seed == seed]

    def write(plan: Plan, results: Results) -> str:
        lines, missing = [], []
        for dataset in sets:
            ours = rows[against](plan, dataset)
            for name, make in rows.items():
                theirs = make(plan, dataset)
                if not any(map(results.get, theirs)):
                    missing.append((dataset, name))
                    continue
                scored = [told(results, theirs, metric) for metric in ("macro_f1", "auroc")]
                gaps = [ahead(results, ours, theirs, metric) for metric in ("macro_f1", "auroc")]
                lines.append([dataset, name, *scored, *gaps, _cost(results, theirs)])
        if len(sets) > 1:
            over = {name: _over_sets(plan, results, sets, rows, against, name) for name in rows if name != against}
            lines += [["all sets", name, "", "", gap, "", ""] for name, gap in over.items() if gap]
        head = ("set", "row", "macro F1", "AUROC", f"{against} better by, F1", "AUROC", "trained; s an epoch")
        return "\n\n".join(filter(None, (grid(head, lines), _filled(said), not_run(missing, list(rows)))))

    return Table(title, jobs, write, named)


def not_run(missing: Sequence[tuple[str, str]], rows: Sequence[str]) -> str:
    """A sentence on the (set, row) pairs without any training; a set that lacks all rows is named alone."""
    by_set: dict[str, list[str]] = {}
    for dataset, name in missing:
        by_set.setdefault(dataset, []).append(name)
    parts = [f"`{name}`" + ("" if len(own) == len(rows) else f" {', '.join(own)}") for name, own in by_set.items()]
    return _filled(f"Not run: {'; '.join(parts)}.") if parts else ""


def _filled(sentences: str) -> str:
    return textwrap.fill(sentences, 120, break_on_hyphens=False)


def _cost(results: Results, jobs: Sequence[Job]) -> str:
    found = [result for result in map(results.get, jobs) if result]
    if not found:
        return ""
    return f"{found[0]['share']:.1%}; {np.median([result['seconds_per_epoch'] for result in found]):.0f}"


def _over_sets(plan: Plan, results: Results, sets: Sequence[str], rows: Rows, against: str, name: str) -> str:
    """Mean difference over the sets, for each seed that has run on all of them, its interval; empty if none has."""
    gaps = []
    for place in range(len(plan.seeds)):
        pairs = [(results.get(rows[against](plan, one)[place]), results.get(rows[name](plan, one)[place]))
                 for one in sets]  # fmt: skip
        if all(a and b for a, b in pairs):
            gaps.append(float(np.mean([100 * (a["macro_f1"] - b["macro_f1"]) for a, b in pairs if a and b])))
    if not gaps:
        return ""
    mean, half = interval(gaps)
    return f"{mean:.1f}" if np.isnan(half) else f"{mean:.1f} ± {half:.1f} ({len(gaps)} seeds)"
