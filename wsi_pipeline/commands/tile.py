"""`segment` and `tile`: from slides to tissue masks and patch stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.config.execution import CohortOptions, QuPathOptions, TileExecution, usable_cores
from wsi_pipeline.config.specs import SegmentSpec, TileSpec
from wsi_pipeline.config.tissue_weights import TissueNetworks
from wsi_pipeline.remote.traffic import Traffic
from wsi_pipeline.stages.engine.runner import READ, CohortResult, SlideStage, StageResult, run_cohort
from wsi_pipeline.wording import counted, grouped, listed

if TYPE_CHECKING:
    from wsi_pipeline.stages.segment import SegmentStage

_WHAT_NEXT = "embed --model pathotune"


def segment(request: Request) -> int:
    """Find tissue on every slide."""
    return _work(request, _segment_stage(request, overlay=True), [], "segment")


def tile(request: Request) -> int:
    """Find tissue on every slide and lay patches over it."""
    from wsi_pipeline.stages.tile import TileStage

    execution = request.get(TileExecution)
    tiling = TileStage(request.run_dir, request.get(TileSpec), execution.store)
    return _work(request, _segment_stage(request, overlay=False), [tiling], "segment+tile")


def _segment_stage(request: Request, *, overlay: bool) -> SegmentStage:
    # Other commands print in the same way but find no tissue.
    from wsi_pipeline.stages.segment import SegmentStage
    from wsi_pipeline.tissue_networks.plan_networks import plan_networks

    execution, cohort = request.get(TileExecution), request.get(CohortOptions)
    no_crop = request.get(QuPathOptions).qupath_no_crop
    spec = request.get(SegmentSpec)
    networks = plan_networks(spec.method, request.get(TissueNetworks), _threads(execution.processes))
    return SegmentStage(request.run_dir, spec, cohort.default_mpp, execution.store, overlay, no_crop, networks)


def _threads(processes: int) -> int:
    """Threads of torch in each of several processes, so that together they use every core once."""
    return max(1, usable_cores() // processes) if processes > 1 else 0


def _work(request: Request, segmenting: SegmentStage, others: Sequence[SlideStage], name: str) -> int:
    records = request.select(request.open_cohort())
    segmenting.open_networks(records)
    with request.console.progress(name, len(records), "slides") as step:
        result = run_cohort(
            [segmenting, *others],
            request.run_dir,
            records,
            workers=request.get(TileExecution).processes,
            on_result=lambda results: step(1),
        )
    _print_result(request, records, result)
    return EXIT_SOME_FAILED if result.failed else EXIT_DONE


def _print_result(request: Request, records: Sequence[SlideRecord], result: CohortResult) -> None:
    console, rows = request.console, [row(item, request.run_dir) for item in result.last.values()]
    hidden = len(rows) - MOST_ROWS
    if hidden > 0:  # a long cohort shows only what needs attention
        rows = [line for line in rows if line[-1]][:MOST_ROWS]
    asked = f"mpp (asked {request.get(TileSpec).mpp:g})"
    console.table(("slide", "patches", "tissue mm2", asked, "note"), rows, right=(1, 2))
    if hidden > 0:
        console.say(f"... of {counted(len(result.last), 'slide')}, only those with a note are shown")
    print_redone(request, result)
    done = [item for item in result.last.values() if item.action in ("made", "fresh")]
    patches = sum(int(item.status.summary.get("patches", 0)) for item in done)
    if done:
        console.say(f"{counted(patches, 'patch')} on {counted(len(done), 'slide')}{_dropped(done)}")
    overlays = f"overlays: {shown(request.run_dir.root)}/segment/"
    print_end(request, result, f"{overlays} · {request.next(_WHAT_NEXT)}" if patches else overlays)


def _dropped(results: Sequence[StageResult]) -> str:
    """`; 12 dropped as artefacts: 10 out of focus, 2 fold`; "" if none were."""
    counts: dict[str, int] = {}
    for result in results:
        for reason, count in result.status.summary.get("dropped", {}).items():
            counts[reason] = counts.get(reason, 0) + count
    reasons = ", ".join(f"{grouped(count)} {reason}" for reason, count in sorted(counts.items()))
    return f"; {grouped(sum(counts.values()))} dropped as artefacts: {reasons}" if counts else ""


def row(result: StageResult, run: RunDir) -> tuple[str, str, str, str, str]:
    """One row of the closing table: slide, patches, tissue, mpp and its source, note."""
    status = result.status
    if result.action in ("failed", "blocked"):
        return result.slide_id, "-", "-", "-", f"FAILED {status.reason}"
    summary = status.summary
    resampled = ", resampled" if summary.get("resampled") else ""
    patches = grouped(int(summary["patches"])) if "patches" in summary else "-"
    note = status.note
    if note:
        note += f": look at {shown(run.overlay(result.slide_id))}"
    mpp = f"{summary['mpp']:.4f} {summary['mpp_source']}{resampled}"
    return result.slide_id, patches, f"{summary['tissue_mm2']:.1f}", mpp, note


def print_redone(request: Request, result: CohortResult) -> None:
    """Print how many slides were up to date, and why others were recomputed."""
    last = result.last.values()
    fresh = sum(item.action == "fresh" for item in last)
    if fresh:
        request.console.say(f"{fresh} up to date")
    reasons: dict[str, int] = {}
    for item in result.results:
        if item.action == "made" and item.why:
            reasons[f"{item.stage}: {item.why}"] = reasons.get(f"{item.stage}: {item.why}", 0) + 1
    for reason, count in reasons.items():
        request.console.say(f"{counted(count, 'slide')} recomputed, {reason}")


def _has_read(result: StageResult) -> bool:
    return result.action == "made" and READ in result.status.summary


def print_end(request: Request, result: CohortResult, after: str) -> None:
    """Print the last lines: failures and where their details are, then what to do next."""
    parts = []
    read = [Traffic.parse(item.status.summary[READ]) for item in result.results if _has_read(item)]
    if read:
        slides = {item.slide_id for item in result.results if _has_read(item)}
        request.console.say(f"read {sum(read, Traffic())}, of {counted(len(slides), 'slide')} at addresses")
    if result.failed:
        first = shown(request.run_dir.status(result.failed[0].slide_id))
        parts.append(f"{len(result.failed)} of {len(result.last)} failed. Details: {first}")
    request.console.say(" · ".join([*parts, after]))
    print_todos(request, result)


def print_todos(request: Request, result: CohortResult) -> None:
    """Print what to do about the slides that failed, each sentence once."""
    todos: dict[str, list[str]] = {}
    for item in result.failed[:MOST_ROWS]:
        if item.status.todo:
            todos.setdefault(item.status.todo, []).append(item.slide_id)
    for todo, slides in todos.items():
        request.console.say(f"  {listed(slides)}: {todo}")
