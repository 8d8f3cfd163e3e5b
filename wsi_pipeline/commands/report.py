"""`report`: write the report of a run as it stands."""

from __future__ import annotations

from wsi_pipeline.commands.request import EXIT_DONE, Request, shown
from wsi_pipeline.stages.report import write_report


def report(request: Request) -> int:
    """Gather what the run has made so far into one HTML file."""
    path = write_report(request.run_dir, request.known_cohort())
    request.console.say(f"open the report: {shown(path)} ({path.stat().st_size / 1e6:.1f} MB)")
    return EXIT_DONE
