"""Before patches are embedded with `--stain-norm`: measure the slides' stain, find the target, say what fits."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import existing_store
from wsi_pipeline.cohort.slide_status import read_status
from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.request import Request
from wsi_pipeline.config.execution import usable_cores
from wsi_pipeline.errors import UsageError
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.engine.runner import run_cohort
from wsi_pipeline.stages.inputs.stain_files import StainTarget, known_profiles, stage_name
from wsi_pipeline.stages.inputs.stain_target import AUTO, check_target, names_slides, resolve_target
from wsi_pipeline.stages.outputs.stain_outputs import write_stains
from wsi_pipeline.stages.stain_profiles import StainStage
from wsi_pipeline.stains.recolour import misfit
from wsi_pipeline.store.schema import PATCH_FORMAT
from wsi_pipeline.wording import counted

_MOST_WORKERS = 8


def prepare_stain(request: Request, method: str, asked: str) -> StainTarget:
    """Measure the tiled slides that need it, find the target, write table and picture, name slides that do not fit.

    Raises UsageError if there is no usable target.
    """
    tiled = _tiled(request, method, asked)
    chosen = {record.slide_id for record in request.select(request.known_cohort())}
    # A target that cannot be used is refused before the other slides are measured.
    target = _find_target(request, method, asked, tiled)
    known = {record.slide_id for record in names_slides(asked, tiled)}
    measure(request, method, [record for record in tiled if record.slide_id in chosen - known])
    write_stains(request.run_dir, target, tiled)
    _note_misfits(request, target, [record for record in tiled if record.slide_id in chosen])
    return target


def target_only(request: Request, method: str, asked: str) -> StainTarget:
    """The target, without measuring more slides than it needs. Only one that is chosen by `auto` is recorded.

    Raises UsageError if there is no usable target.
    """
    return _find_target(request, method, asked, _tiled(request, method, asked), keep=asked == AUTO)


def _find_target(
    request: Request, method: str, asked: str, tiled: Sequence[SlideRecord], keep: bool = True
) -> StainTarget:
    measure(request, method, names_slides(asked, tiled))
    target = resolve_target(request.run_dir, method, asked, tiled, _patches(request, tiled), keep)
    request.console.fact("stain", f"{target.method}, target: {target.source} ({target.profile.kind})")
    return target


def check_stain(request: Request, method: str, asked: str) -> None:
    """Check a target while no slide has patches. Raises UsageError if it cannot be used."""
    check_target(method, asked, [record.slide_id for record in request.known_cohort().records])


def _tiled(request: Request, method: str, asked: str) -> list[SlideRecord]:
    cohort = request.known_cohort().records
    tiled = [record for record in cohort if existing_store(request.run_dir.patch_store(record.slide_id))]
    if not tiled:
        check_stain(request, method, asked)
        raise UsageError("no slide of this run has been tiled", todo="Run first: wsi-pipeline tile slides.csv")
    return tiled


def measure(request: Request, method: str, records: Sequence[SlideRecord]) -> None:
    """Measure the stain of slides; those that are up to date are not read again."""
    if not records:
        return
    stage = StainStage(request.run_dir, method)
    with request.console.progress("stain", len(records), "slides") as step:
        run_cohort(
            [stage],
            request.run_dir,
            records,
            workers=min(_MOST_WORKERS, usable_cores()) if len(records) > 1 else 0,
            on_result=lambda results: step(1),
        )


def stain_failures(request: Request, method: str) -> list[str]:
    """Slides whose stain could not be measured, each with the reason, in the order of the cohort."""
    records = request.select(request.known_cohort())
    stages = [(one.slide_id, read_status(request.run_dir.status(one.slide_id), one.slide_id).stages) for one in records]
    failed = [(name, found.get(stage_name(method))) for name, found in stages]
    return [f"{name}: {status.reason}" for name, status in failed if status is not None and status.state == "failed"]


def _patches(request: Request, records: Sequence[SlideRecord]) -> dict[str, object]:
    """Size and resolution that the run's patches were asked for."""
    for record in records:
        path = existing_store(request.run_dir.patch_store(record.slide_id))
        header = read_header(path, PATCH_FORMAT) if path else None
        if header is not None:
            asked = header.specs.get("tile") or header.specs.get("import") or {}
            return {key: asked.get(key) for key in ("patch_px", "mpp")}
    return {}


def _note_misfits(request: Request, target: StainTarget, records: Sequence[SlideRecord]) -> None:
    """Name the slides that are embedded as they are, each with the reason."""
    profiles = known_profiles(request.run_dir, target.method, records)
    reasons = {name: misfit(profile, target.profile) for name, profile in profiles.items() if profile.patches}
    left = [(name, why) for name, why in reasons.items() if why]
    for name, why in left[:MOST_ROWS]:
        request.console.note(f"{name} keeps its own stain: {why}")
    for text in stain_failures(request, target.method)[:MOST_ROWS]:
        request.console.note(f"stain not measured, {text}")
    if len(left) > MOST_ROWS:
        request.console.note(f"and {counted(len(left) - MOST_ROWS, 'more slide')}, all in stains.csv")
