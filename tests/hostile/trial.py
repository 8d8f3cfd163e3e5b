"""One spoilt slide through the stages in a process of its own, with limits of time and memory, and what came of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.slide_cases import Case, make
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.commands.checks.check_slide import check_slide
from wsi_pipeline.config.specs import SegmentSpec, TileSpec
from wsi_pipeline.stages.engine.runner import process_slide
from wsi_pipeline.stages.segment import SegmentStage
from wsi_pipeline.stages.tile import TileStage
from wsi_pipeline.system.isolate import Crash, Limits, run_isolated

LIMITS = Limits(seconds=300.0, memory=4 << 30)
SPEC = TileSpec(patch_px=128, pixels="jpeg", min_coverage=0.05, allow_upsample=True)
OUTCOMES = ("done", "refused", "out of memory", "crashed", "hung", "unexpected")
ALLOWED = frozenset({"done", "refused"})


@dataclass(frozen=True)
class Outcome:
    """What became of a case: one of OUTCOMES, the reason in words, and how many patches were read."""

    outcome: str
    reason: str = ""
    patches: int = 0
    checked: str = ""


def attempt(case: Case, folder: Path) -> Outcome:
    """Make the slide, check it, segment and tile it with all its patches read; for a worker process."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        path = make(case, place)
        record = SlideRecord("s", path, "p")
        checked = check_slide(record, SPEC, 0.5)
        run = RunDir(place / "run")
        results = process_slide([SegmentStage(run, SegmentSpec(), 0.5), TileStage(run, SPEC)], run, record)
        status = results[-1].status
        if checked.failure.startswith("unexpected"):
            return Outcome("unexpected", f"check: {checked.failure}")
        if status.state != "failed":
            return Outcome("done", patches=int(status.summary.get("patches", 0)), checked=checked.failure)
        kind = {"unexpected": "unexpected", "out of": "out of memory"}
        outcome = next((name for start, name in kind.items() if status.reason.startswith(start)), "refused")
        return Outcome(outcome, status.reason, checked=checked.failure)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def attempt_all(cases: Iterable[Case], folder: Path, workers: int = 2) -> Iterator[tuple[Case, Outcome]]:
    """Each case in a process of its own; crashes and overtime are outcomes too."""
    jobs = ((case, folder) for case in cases)
    for (case, _), made in run_isolated(attempt, jobs, workers, preload=[__name__], limits=LIMITS):
        if not isinstance(made, Crash):
            yield case, made
        elif made.overtime is not None:
            yield case, Outcome("hung", made.reason)
        else:
            yield case, Outcome("crashed", made.reason)
