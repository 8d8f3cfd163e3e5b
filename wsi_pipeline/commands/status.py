"""`status`: the progress of a cohort, read from its status files; opens no slide."""

from __future__ import annotations

from collections import Counter

from wsi_pipeline.cohort.slide_status import SlideStatus, read_status
from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.stages.results.finished import finished
from wsi_pipeline.statistics.metric_words import target_name
from wsi_pipeline.wording import counted


def status(request: Request) -> int:
    """Print how many slides are done, empty, failed or pending in each stage, and why slides failed."""
    records = request.select(request.known_cohort())
    slides = [read_status(request.run_dir.status(record.slide_id), record.slide_id) for record in records]
    request.console.fact("run", f"{shown(request.run_dir.root)}/  {counted(len(slides), 'slide')}")
    stages = list(dict.fromkeys(["segment", "tile", *(name for slide in slides for name in slide.stages)]))
    rows = [[stage, *(str(count) for count in _counts(slides, stage))] for stage in stages]
    request.console.table(("stage", "done", "empty", "failed", "pending"), rows, right=(1, 2, 3, 4))
    failed = [(slide.slide_id, *slide.failed) for slide in slides if slide.failed]
    shown_rows = [(slide_id, stage, item.reason) for slide_id, stage, item in failed[:MOST_ROWS]]
    request.console.table(("slide", "failed in", "reason"), shown_rows)
    for folder, _ in finished(request.run_dir.root, "tune/*"):
        request.console.fact("adapter", f"{shown(folder)}/")
    for folder, metrics in finished(request.run_dir.root, "train-mil/*/*"):
        request.console.fact("model", f"{shown(folder)}/  predicts {target_name(metrics)}")
    if request.run_dir.report_html.is_file():
        request.console.fact("report", shown(request.run_dir.report_html))
    return EXIT_SOME_FAILED if failed else EXIT_DONE


def _counts(slides: list[SlideStatus], stage: str) -> list[int]:
    """Done, empty, failed, pending; a slide that failed earlier is pending here."""
    states = Counter(slide.stages[stage].state for slide in slides if stage in slide.stages)
    return [states["done"], states["empty"], states["failed"], len(slides) - sum(states.values())]
