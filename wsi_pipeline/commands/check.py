"""`check`: before a run, say what will not work. Opens every slide, reads none whole, writes nothing."""

from __future__ import annotations

from wsi_pipeline.cohort.manifest import SlideRecord, read_cohort
from wsi_pipeline.cohort.rundir import RunDir
from wsi_pipeline.commands.request import EXIT_DONE, EXIT_SOME_FAILED, Request, plural
from wsi_pipeline.errors import SlideError
from wsi_pipeline.execution import CohortOptions, usable_cores
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.spacing import spacing_of
from wsi_pipeline.specs import TileSpec
from wsi_pipeline.stages.isolate import Crash, run_isolated
from wsi_pipeline.stages.runner import failure
from wsi_pipeline.tiling.resolve import resolve_geometry

Row = tuple[str, str, str, str, str, str]


def check(request: Request) -> int:
    """Print format, size, resolution and its source for every slide, or why it cannot be tiled."""
    options = request.get(CohortOptions)
    if request.sources:
        cohort = read_cohort(request.sources, mixed_labels=options.mixed_labels)
    else:
        cohort = read_cohort([RunDir.existing(request.run_dir.root).cohort_csv], mixed_labels=True)
    for note in cohort.notes:
        request.console.note(str(note))
    records = request.select(cohort)
    jobs = ((record, request.get(TileSpec), options.default_mpp) for record in records)
    rows: dict[str, Row] = {}
    with request.console.progress("check", len(records), "slides") as step:
        for job, row in run_isolated(look_at, jobs, min(16, usable_cores()), preload=[__name__]):
            slide_id = job[0].slide_id
            rows[slide_id] = (slide_id, "-", "-", "-", "-", f"FAILED {row.reason}") if isinstance(row, Crash) else row
            step()
    ordered = [rows[record.slide_id] for record in records]
    request.console.table(("slide", "format", "size", "levels", "mpp", "note"), ordered, right=(2, 3))
    failed = sum(row[-1].startswith("FAILED") for row in ordered)
    request.console.say(f"{plural(len(ordered) - failed, 'slide')} can be tiled, {failed} cannot")
    return EXIT_SOME_FAILED if failed else EXIT_DONE


def look_at(record: SlideRecord, spec: TileSpec, default_mpp: float | None) -> Row:
    """One line about one slide: slide, format and backend, size, levels, mpp and its source, what is wrong."""
    try:
        with open_slide(record.path) as slide:
            info = slide.info
            spacing = spacing_of(info, record.mpp, default_mpp)
            geometry = resolve_geometry(spec, info, spacing.mpp)
            left, top = (max(0, side // 2 - 128) for side in (info.size.width, info.size.height))
            slide.read_region(left, top, geometry.level, min(256, info.size.width), min(256, info.size.height))
    except (SlideError, OSError) as error:
        return record.slide_id, "-", "-", "-", "-", f"FAILED {failure(error).reason}"
    size = f"{info.size.width} x {info.size.height}"
    mpp = f"{spacing.mpp:.4f} {spacing.source}"
    return record.slide_id, f"{info.vendor} ({info.backend})", size, str(len(info.levels)), mpp, spacing.note
