"""`demo`: a cohort of synthetic slides for trying out all commands."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.demo.demo_cohort import ANNOTATED, make_cohort
from wsi_pipeline.errors import UsageError

ANNOTATED_SLIDES = 8


def demo(request: Request) -> int:
    """Make the slides and their slides.csv in the given folder; existing files are kept."""
    if len(request.sources) != 1:
        raise UsageError(f"demo takes one folder, got {len(request.sources)}")
    made: list[int] = [0]
    with request.console.progress("demo", 1, "slides") as step:

        def on_slide(done: int, total: int) -> None:
            step.total = total
            step(done - made[0])
            made[0] = done

        csv = make_cohort(Path(request.sources[0]), annotated=ANNOTATED_SLIDES, progress=on_slide)
    request.console.say(f"synthetic slides, only for trying out the commands: {shown(csv)}")
    labels = shown(csv.with_name(ANNOTATED))
    request.console.say(
        f"{ANNOTATED_SLIDES} more slides, of other patients, with tissue regions annotated by class, for tune: {labels}"
    )
    request.console.say(f"next: wsi-pipeline tile {shown(csv)}")
    return EXIT_DONE
