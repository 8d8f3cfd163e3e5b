"""`check`: report problems before a run. Opens every slide, reads small regions of it, writes a CSV on request."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from wsi_pipeline.cohort.formulas import safe_cell
from wsi_pipeline.cohort.manifest import Cohort, SlideRecord, read_run
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.commands.checks.check_cohort import RunCost, join_labels, mark_copies, run_cost, unlisted_files
from wsi_pipeline.commands.checks.check_slide import SlideCheck, check_slide
from wsi_pipeline.commands.shell.console import MOST_ROWS, Console, clock
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, MOST_NOTES, Request, shown
from wsi_pipeline.config.execution import CheckOptions, CohortOptions, QuPathOptions, TableOptions, usable_cores
from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.system.isolate import Crash, Limits, run_isolated
from wsi_pipeline.wording import counted, grouped, listed

MOST_SECONDS = 120.0
"""Time limit per slide: a slide that takes longer hangs, or its file share does."""

CSV_COLUMNS = (
    "slide_id", "path", "patient_id", "label", "state", "format", "backend", "codec", "width", "height", "levels",
    "mpp", "mpp_source", "objective", "bytes", "copy_of", "patches", "tile_seconds", "read_seconds", "store_bytes",
    "note", "todo",
)  # fmt: skip


def check(request: Request) -> int:
    """Print the facts of every slide, or why it cannot be tiled; then copies, labels, unlisted files, and the cost."""
    cohort = _cohort(request)
    records = request.select(cohort)
    checks = mark_copies(_look_at_all(request, records))
    _print_slides(request.console, checks)
    _print_labels(request.console, cohort)
    if request.sources:
        _note_unlisted(request.console, cohort.records)
    cost = run_cost(checks, _processes(), request.get(CheckOptions).feature_dim, request.run_dir.root)
    _print_cost(request, cost)
    if request.get(CheckOptions).csv:
        _write_csv(request, records, checks)
    return _end(request.console, checks, cost)


def _processes() -> int:
    return min(16, usable_cores())


def _cohort(request: Request) -> Cohort:
    if not request.sources:
        return read_run(RunDir.existing(request.run_dir.root).cohort_csv, request.get(TableOptions))
    cohort = request.read_sources()
    for note in cohort.notes[:MOST_NOTES]:
        request.console.note(str(note))
    if len(cohort.notes) > MOST_NOTES:
        request.console.note(f"and {counted(len(cohort.notes) - MOST_NOTES, 'more note')}")
    return cohort


def _look_at_all(request: Request, records: Sequence[SlideRecord]) -> list[SlideCheck]:
    spec, default_mpp = request.get(TileSpec), request.get(CohortOptions).default_mpp
    found: dict[str, SlideCheck] = {}
    with request.console.progress("check", len(records), "slides") as step:
        no_crop = request.get(QuPathOptions).qupath_no_crop
        jobs = ((record, spec, default_mpp, no_crop) for record in records)
        preload, limits = [check_slide.__module__], Limits(seconds=MOST_SECONDS)
        for (record, *_), made in run_isolated(check_slide, jobs, _processes(), preload=preload, limits=limits):
            crashed = isinstance(made, Crash)
            found[record.slide_id] = SlideCheck(record.slide_id, failure=made.reason) if crashed else made
            step()
    return [found[record.slide_id] for record in records]


def _print_slides(console: Console, checks: Sequence[SlideCheck]) -> None:
    shown_here = list(checks)
    if len(checks) > MOST_ROWS:
        shown_here = [item for item in checks if item.needs_attention or item.note][:MOST_ROWS]
    headers = ("slide", "format", "codec", "size", "levels", "mpp", "objective", "MB", "patches", "note")
    console.table(headers, [_row(item) for item in shown_here], right=(3, 4, 6, 7, 8))
    if len(checks) > MOST_ROWS:
        console.say(f"... of {counted(len(checks), 'slide')}, only those with a note are shown")


def _row(item: SlideCheck) -> tuple[str, ...]:
    file, info, spacing, cost = item.file, item.info, item.spacing, item.cost
    return (
        item.slide_id,
        f"{info.vendor} ({info.backend})" if info else "-",
        file.codec if file else "-",
        f"{info.size.width} x {info.size.height}" if info else "-",
        str(len(info.levels)) if info else "-",
        f"{spacing.mpp:.4f} {spacing.source}" if spacing else "-",
        f"{info.objective:g}x" if info and info.objective else "-",
        f"{file.nbytes / 1e6:.1f}" if file else "-",
        f"~{grouped(cost.patches)}" if cost else "-",
        _note(item),
    )


def _note(item: SlideCheck) -> str:
    copy = f"COPY of {item.copy_of}" if item.copy_of else ""
    failed = f"FAILED {item.failure}" if item.failure else ""
    return "; ".join(part for part in (failed, copy, item.note) if part)


def _print_labels(console: Console, cohort: Cohort) -> None:
    labels = join_labels(cohort)
    if not labels.counts:
        console.fact(
            "labels", f"none ({counted(cohort.patients, 'patient')}): tile and embed will work, train-mil will not"
        )
        return
    counts = [
        f"{label} {counted(slides, 'slide')} of {counted(patients, 'patient')}"
        for label, (slides, patients) in labels.counts.items()
    ]
    console.fact("labels", "; ".join(counts))
    if labels.without:
        console.note(
            f"{counted(len(labels.without), 'slide')} without a label, not used for training: {listed(labels.without)}"
        )
    if labels.without_file:
        console.note(f"{counted(len(labels.without_file), 'label')} without a slide: {listed(labels.without_file)}")


def _note_unlisted(console: Console, records: Sequence[SlideRecord]) -> None:
    files = unlisted_files(records)
    if files:
        names = listed([path.name for path in files])
        console.note(f"{counted(len(files), 'slide file')} in the same folders not listed in the table: {names}")


def _print_cost(request: Request, cost: RunCost) -> None:
    options, console = request.get(CheckOptions), request.console
    if not cost.patches:
        return
    encode = cost.patches / options.patches_per_second
    console.fact("run", f"estimated from the regions read: about {counted(cost.patches, 'patch')}")
    console.fact(
        "time",
        f"tile {clock(cost.tile_seconds)}; embed {clock(max(encode, cost.read_seconds))} at "
        f"{options.patches_per_second:g} patches per second (reading alone {clock(cost.read_seconds)})",
    )
    console.fact(
        "disk",
        f"{_bytes(cost.store_bytes)} for masks and patches, {_bytes(cost.feature_bytes)} per encoder with "
        f"{options.feature_dim} features; {_bytes(cost.free_bytes)} free",
    )


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _end(console: Console, checks: Sequence[SlideCheck], cost: RunCost) -> int:
    failed = [item for item in checks if item.failure]
    copies = sum(bool(item.copy_of) for item in checks)
    parts = [f"{counted(len(checks) - len(failed), 'slide')} can be tiled, {len(failed)} cannot"]
    if copies:
        parts.append(f"{counted(copies, 'slide')} with the same content as another: keep one of them")
    if not cost.fits:
        parts.append("not enough free disk space for the run: choose another disk with --run FOLDER")
    console.say("; ".join(parts))
    for item in failed[:MOST_ROWS]:
        if item.todo:
            console.say(f"  {item.slide_id}: {item.todo}")
    return EXIT_SOME_FAILED if len(parts) > 1 or failed else EXIT_DONE


def _write_csv(request: Request, records: Sequence[SlideRecord], checks: Sequence[SlideCheck]) -> None:
    path = Path(request.get(CheckOptions).csv or "")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for record, item in zip(records, checks, strict=True):
        writer.writerow([safe_cell(cell) for cell in _cells(record, item)])
    write_text(path, out.getvalue())
    request.console.fact("table", shown(path))


def _cells(record: SlideRecord, item: SlideCheck) -> list[str]:
    file, info, spacing, cost = item.file, item.info, item.spacing, item.cost
    state = "failed" if item.failure else "copy" if item.copy_of else "ok"
    known = [record.slide_id, str(record.path), record.patient_id, record.label or "", state]
    what = [info.vendor, info.backend] if info else ["", ""]
    codec = [file.codec if file else ""]
    levels = " ".join(f"{level.downsample:g}" for level in info.levels) if info else ""
    size = [str(info.size.width), str(info.size.height), levels] if info else ["", "", ""]
    mpp = [f"{spacing.mpp:.6g}", spacing.source] if spacing else ["", ""]
    objective = [f"{info.objective:g}" if info and info.objective else "", str(file.nbytes) if file else ""]
    numbers = (
        [str(cost.patches), f"{cost.tile_seconds:.2f}", f"{cost.read_seconds:.2f}", str(cost.store_bytes)]
        if cost
        else [""] * 4
    )
    note = "; ".join(part for part in (item.failure, item.note) if part)
    return [*known, *what, *codec, *size, *mpp, *objective, item.copy_of, *numbers, note, item.todo]
