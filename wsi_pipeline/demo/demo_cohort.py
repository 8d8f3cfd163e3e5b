"""The demo cohort: a folder of synthetic slides with a manifest and the ground truth of each."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache
from os import PathLike
from pathlib import Path

from wsi_pipeline.demo.demo_slide import make_slide
from wsi_pipeline.demo.plan import SlidePlan, plan_annotated, plan_cohort
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.system.processes import spawn_context

COLUMNS = ("slide_id", "path", "patient_id", "label", "mpp", "site", "stain", "annotation")
"""Columns of slides.csv; paths are relative to it."""

ANNOTATED = "annotated.csv"
"""Manifest of the annotated slides. None of their patients is in slides.csv, so tuning on them leaks nothing."""

RECORD = "demo.json"
"""File that remembers which recipe each slide was made from."""

MOST_WORKERS = 4
"""Default limit on processes: each needs about 550 MB at the default sizes."""


def make_cohort(
    folder: str | PathLike[str],
    *,
    slides: int = 24,
    annotated: int = 0,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    sides: tuple[int, int] = (2600, 4400),
) -> Path:
    """Make a cohort of synthetic H&E slides and return the path of its slides.csv.

    folder     slides go to slides/, tumour outlines (GeoJSON) and class maps (PNG) to truth/
    slides     number of good slides; a blank and a corrupt one are added
    annotated  number of slides in annotated.csv: other patients, with regions of each kind of tissue outlined
    seed       the same seed gives the same bytes
    workers    processes; by default one per usable core, 4 at most
    progress   called with (slides done, slides in all) after each slide
    sides      shortest and longest side of the pictures in pixels

    Existing slides of the same recipe are kept. Raises UsageError for fewer than 4 slides.
    """
    folder = Path(folder)
    cohort, others = plan_cohort(slides, seed, sides), plan_annotated(annotated, seed, sides)
    plans = (*cohort, *others)
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    record = _read_record(folder / RECORD)
    todo = [plan for plan in plans if not _is_made(folder, plan, record)]
    done = len(plans) - len(todo)
    if progress is not None and done:
        progress(done, len(plans))
    for plan in _made(folder, todo, workers):
        record[plan.slide_id] = _entry(folder, plan)
        write_text(folder / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")
        done += 1
        if progress is not None:
            progress(done, len(plans))
    write_text(folder / "slides.csv", _manifest(cohort))
    if others:
        write_text(folder / ANNOTATED, _manifest(others))
    return folder / "slides.csv"


def _made(folder: Path, todo: list[SlidePlan], workers: int | None) -> Iterator[SlidePlan]:
    """Make slides, in worker processes if there may be more than one, and yield the name of each when it is done."""
    count = min(workers or min(_cores(), MOST_WORKERS), len(todo))
    if count <= 1:
        for plan in todo:
            make_slide(folder, plan)
            yield plan
        return
    with ProcessPoolExecutor(count, mp_context=spawn_context()) as pool:
        waiting = {pool.submit(make_slide, folder, plan): plan for plan in todo}
        for future in as_completed(waiting):
            future.result()
            yield waiting[future]


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(plan: SlidePlan) -> str:
    """Digest of what the slide is made from: its plan and the code that paints it."""
    return hashlib.sha256(json.dumps([asdict(plan), _code()], sort_keys=True).encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """Digest of this package's source."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _entry(folder: Path, plan: SlidePlan) -> dict[str, str | int]:
    """The record of a slide that was just made."""
    return {"recipe": _digest(plan), "bytes": (folder / plan.path).stat().st_size}


def _is_made(folder: Path, plan: SlidePlan, record: dict[str, dict[str, str | int]]) -> bool:
    """Whether the slide and its ground truth exist as this recipe makes them."""
    files = [folder / name for name in (plan.path, plan.outlines, plan.class_map)]
    return all(file.is_file() for file in files) and record.get(plan.slide_id) == _entry(folder, plan)


def _read_record(path: Path) -> dict[str, dict[str, str | int]]:
    """The record of an earlier run, empty if there is none or it is damaged."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _manifest(plans: tuple[SlidePlan, ...]) -> str:
    """The text of slides.csv."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for plan in plans:
        mpp = "" if plan.states_mpp else plan.site.mpp
        table.writerow(
            (plan.slide_id, plan.path, plan.patient_id, plan.label, mpp, plan.site.name, "H&E", plan.outlines)
        )
    return text.getvalue()
