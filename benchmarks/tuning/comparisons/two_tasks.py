"""Two tasks in one adapter that only the text tells apart: the same images, two questions, the answers no and yes.

Without text no model can know which question is asked: that row shows what is left to chance. A text that means nothing
shows whether the words matter or only that the texts differ; the other question's text at test shows that the answer
follows the text.
"""

from __future__ import annotations

from typing import Any

from benchmarks.tuning.comparisons.rows import not_run
from benchmarks.tuning.data import ASKED, QUESTIONS
from benchmarks.tuning.job import Job
from benchmarks.tuning.paired import ahead
from benchmarks.tuning.plans import Plan, Table, grid, told
from benchmarks.tuning.queue import Results

Json = dict[str, Any]
_ABOUT = {
    "crc": ({"stain": "H&E", "organ": "human colon"}, "is this nucleus epithelial", "is this nucleus inflammatory"),
    "wbc": ({"stain": "blood", "organ": "human blood"}, "is this cell a neutrophil", "is this cell a lymphocyte"),
    "retina": ({"stain": "un", "organ": "the human retina"}, "is there any retinopathy", "is the retinopathy severe"),
}
ROWS = ("own text", "text that means nothing", "no text")


def _texts(name: str, row: str) -> list[Json]:
    values, *questions = _ABOUT[name]
    if row == "text that means nothing":
        questions = ["one", "two"]
    return [{**values, "task": question} for question in questions]


def _of(plan: Plan, name: str, row: str) -> list[Job]:
    fields = {"ttp": False} if row == "no text" else {}
    return plan.over_seeds(name + ASKED, "pathotune", texts=_texts(name, row), fields=fields)


def _rows(plan: Plan) -> dict[str, list[Job]]:
    return {f"{name} {row}": _of(plan, name, row) for name in QUESTIONS for row in ROWS}


def _jobs(plan: Plan) -> list[Job]:
    return [job for seed in plan.seeds for own in _rows(plan).values() for job in own if job.seed == seed]


def _write(plan: Plan, results: Results) -> str:
    lines, missing = [], []
    for name in QUESTIONS:
        ours = _of(plan, name, "own text")
        for row in ROWS:
            jobs = _of(plan, name, row)
            if not any(map(results.get, jobs)):
                missing.append((name, row))
                continue
            scored = [told(results, jobs, "macro_f1"), *(told(results, jobs, "per_task", k, "macro_f1") for k in "01")]
            lines.append([name, row, *scored, ahead(results, ours, jobs, "macro_f1")])
        if not any(map(results.get, ours)):
            continue
        swapped = told(results, ours, "at_test", "swapped", "macro_f1")
        lines.append([name, "own text, the other question's at test", swapped, "", "", ""])
    head = ("images", "text", "macro F1", "first question", "second question", "own text better by")
    return "\n\n".join(filter(None, (grid(head, lines), not_run(missing, ROWS))))


TWO_TASKS = Table("Two questions about the same images, told apart by text", _jobs, _write, _rows)
