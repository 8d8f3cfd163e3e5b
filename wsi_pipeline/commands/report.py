"""`report`: the report of a run in its current state."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.cohort.manifest import Cohort
from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.stages.report import write_report
from wsi_pipeline.stages.results.tuning_files import tunings


def report(request: Request) -> int:
    """Gather the results of the run so far in one HTML file."""
    path = report_of(request)
    request.console.say(f"open the report: {shown(path)} ({path.stat().st_size / 1e6:.1f} MB)")
    return EXIT_DONE


def report_of(request: Request) -> Path:
    """Write the report of the run; without slides if adapters were tuned but nothing was tiled."""
    run = request.run_dir
    without_slides = not run.cohort_csv.is_file() and bool(tunings(run))
    return write_report(run, Cohort((), str(run.root)) if without_slides else request.known_cohort())


def write_cohort_report(request: Request, cohort: Cohort) -> None:
    """Write the report and say where it is."""
    request.console.say(f"open the report: {shown(write_report(request.run_dir, cohort))}")
