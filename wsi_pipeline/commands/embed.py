"""`embed`: patches to features."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.rundir import RunDir, existing_store
from wsi_pipeline.cohort.status import StageStatus
from wsi_pipeline.commands.console import MOST_ROWS
from wsi_pipeline.commands.request import EXIT_DONE, EXIT_SOME_FAILED, Request, plural, shown
from wsi_pipeline.commands.tile import tell_end, tell_redone
from wsi_pipeline.encoders.base import EncoderPlan
from wsi_pipeline.encoders.registry import plan_encoder
from wsi_pipeline.errors import StoreError, UsageError
from wsi_pipeline.execution import EmbedExecution
from wsi_pipeline.specs import EmbedSpec
from wsi_pipeline.stages.embed import EmbedStage
from wsi_pipeline.stages.runner import CohortResult, StageResult, blocked, run_cohort
from wsi_pipeline.store.patches import PatchTable, read_patches


def embed(request: Request) -> int:
    """Embed every tiled slide of the run with one encoder."""
    records = request.select(request.known_cohort())
    spec, execution = request.get(EmbedSpec), request.get(EmbedExecution)
    ready, kept_back = _sort_out(records, request.run_dir, f"embed/{spec.model}")
    if not ready and not kept_back:
        raise UsageError("no slide of this run has been tiled", todo="Run first: wsi-pipeline tile slides.csv")
    if not ready:
        _tell(request, CohortResult(tuple(kept_back)))
        return EXIT_SOME_FAILED
    plan = plan_encoder(
        spec.model,
        weights=Path(execution.weights) if execution.weights else None,
        patch_px=ready[0][1].geometry.patch_px,
    )
    stage = _stage(request, plan)
    total = sum(len(table.grid) for record, table in ready if not stage.check(record).fresh)
    if total:
        stage.load()  # weights that do not fit are refused here, once, not slide by slide
    with request.console.progress("embed", total, "patches") as step:
        stage.on_patches = step
        result = run_cohort([stage], request.run_dir, [record for record, _ in ready], workers=0)
    result = CohortResult((*result.results, *kept_back))
    waiting = len(records) - len(result.last)
    if waiting:
        request.console.note(f"not tiled yet, so not embedded: {plural(waiting, 'slide')}; wsi-pipeline tile does it")
    _tell(request, result)
    return EXIT_SOME_FAILED if result.failed else EXIT_DONE


def _sort_out(
    records: tuple[SlideRecord, ...], run: RunDir, stage: str
) -> tuple[list[tuple[SlideRecord, PatchTable]], list[StageResult]]:
    """Slides that have patches, and results for those that have none because an earlier stage failed.

    Slides that are not tiled yet are in neither.
    """
    ready, kept_back = [], []
    for record in records:
        path = existing_store(run.patch_store(record.slide_id))
        failed = blocked(record, run, stage)
        if failed is not None or path is None:
            kept_back += [failed] if failed else []
            continue
        try:
            ready.append((record, read_patches(path)))
        except StoreError as error:
            status = StageStatus("failed", error.what, error.todo or "")
            kept_back.append(StageResult(record.slide_id, stage, "failed", status))
    return ready, kept_back


def _stage(request: Request, plan: EncoderPlan) -> EmbedStage:
    """The stage, with device and arithmetic chosen; missing weights are refused here, once, not slide by slide."""
    spec, execution = request.get(EmbedSpec), request.get(EmbedExecution)
    batch = execution.batch or plan.suggest_batch(execution.device)
    request.console.fact("encoder", f"{spec.model}: {_about(plan)}")
    fingerprint = plan.fingerprint
    request.console.fact("device", plan.describe(execution.device, spec.precision, batch))
    request.console.fact("weights", fingerprint[:16])
    return EmbedStage(request.run_dir, spec, plan, execution.device, batch, execution.threads, execution.store)


def _about(plan: EncoderPlan) -> str:
    info = plan.info
    size = f"input {info.input_px} px" if info.input_px else "any patch size"
    return f"{info.family}, {size}, {info.dim} features; licence: {info.licence}"


def _tell(request: Request, result: CohortResult) -> None:
    request.console.table(
        ("slide", "note"),
        [(item.slide_id, f"FAILED {item.status.reason}") for item in result.failed][:MOST_ROWS],
    )
    tell_redone(request, result)
    done = [item for item in result.last.values() if item.action in ("made", "fresh")]
    folder = request.run_dir.feature_store(request.get(EmbedSpec).model, "x").parent
    told = f"{plural(len(done), 'slide')} in {shown(folder)}/ · next: wsi-pipeline train-mil"
    tell_end(request, result, told)
