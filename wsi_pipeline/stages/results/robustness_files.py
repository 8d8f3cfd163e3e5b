"""What `robustness` measured in a run: read, and written as tables and a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.report.figures.robustness_figure import robustness_figure, standalone
from wsi_pipeline.system.atomic import remove, write_text_if_changed

MOVEMENTS, NEIGHBOURS, FIGURE = "robustness.csv", "neighbours.csv", "robustness.svg"
_MOVED = ("median", "low", "high", "relative", "lost", "patches", "slides")
_INDICES = ("ri", "mari", "croma")


def read_results(run: RunDir) -> list[dict[str, Any]]:
    """The results of all encoders measured on the newest sample, by name; damaged files are left out."""
    found = []
    for path in sorted(run.robustness.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            found.append((path.stat().st_mtime_ns, str(result["sample"]), result))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    newest = max(found, key=lambda each: each[0], default=(0, "", {}))[1]
    return [result for _, sample, result in found if sample == newest]


def write_tables(run: RunDir, results: Sequence[dict[str, Any]]) -> None:
    """Write robustness.csv, neighbours.csv and robustness.svg of these encoders, each atomically, if they changed."""
    rows = [
        [result["encoder"]["name"], move["kind"], move["strength"], move["unit"], *(move[key] for key in _MOVED)]
        for result in results
        for move in result["movements"]
    ]
    write_text_if_changed(run.robustness / MOVEMENTS, _csv(("encoder", "kind", "strength", "unit", *_MOVED), rows))
    near = [
        [result["encoder"]["name"], measure, facts["value"], facts["patches"]]
        for result in results
        for measure, facts in [*result["neighbours"].items(), *_indices(result)]
    ]
    write_text_if_changed(run.robustness / NEIGHBOURS, _csv(("encoder", "measure", "value", "patches"), near))
    drawing = robustness_figure(results)
    if drawing is None:
        remove(run.robustness / FIGURE)
    else:
        write_text_if_changed(run.robustness / FIGURE, standalone(drawing))


def _indices(result: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    scored = result["confounding"]
    for name in _INDICES:
        facts = scored[name] if scored else {"value": None, "scored": 0}
        yield name, {"value": facts["value"], "patches": facts["scored"]}


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if value is None else _short(value) for value in row] for row in rows])
    return out.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
