"""`classify`: classify every patch; writes probabilities, fractions, pictures and polygons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.over_patches import over_patches, print_network
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.shell.safeyaml import read_yaml
from wsi_pipeline.commands.tile import print_end, print_redone
from wsi_pipeline.config.execution import ClassifyExecution, QuPathOptions
from wsi_pipeline.config.specs import ClassifySpec
from wsi_pipeline.encoders.encoder import EncoderPlan
from wsi_pipeline.encoders.hf_models.prompts import read_prompts
from wsi_pipeline.encoders.pathotune import PathoTunePlan
from wsi_pipeline.errors import EncoderError, UsageError
from wsi_pipeline.report.maps.class_overlay import percent
from wsi_pipeline.stages.classify import ClassifyStage
from wsi_pipeline.stages.engine.runner import CohortResult, StageResult
from wsi_pipeline.stages.inputs.find_adapter import check_encoder, plan_in_run
from wsi_pipeline.stages.results.fractions import current_header, write_fractions
from wsi_pipeline.store.tables.patch_table import PatchFacts
from wsi_pipeline.wording import counted, grouped

if TYPE_CHECKING:
    from wsi_pipeline.encoders.hf_models.zero_shot import ZeroShotPlan

_MOST_CLASSES = 4


def classify(request: Request) -> int:
    """Classify the patches of every tiled slide of the run with one adapter."""
    result = over_patches(
        request, "classify", "classified", lambda tables: [_stage(request, tables)], partial(_check, request)
    )
    _print_result(request, result)
    return EXIT_SOME_FAILED if result.failed else EXIT_DONE


def _check(request: Request) -> None:
    """Look up the model and the prompts, while no slide has patches."""
    spec, execution = request.get(ClassifySpec), request.get(ClassifyExecution)
    check_encoder(request.run_dir, spec.model, execution.adapter, execution.weights)
    if execution.prompts is not None:
        read_prompts(read_yaml(Path(execution.prompts)), execution.prompts)


def _stage(request: Request, tables: Sequence[PatchFacts]) -> ClassifyStage:
    """Return the stage; print the adapter, and the device and precision chosen."""
    spec, execution = request.get(ClassifySpec), request.get(ClassifyExecution)
    encoder, remark = plan_in_run(request.run_dir, spec.model, adapter=execution.adapter, weights=execution.weights)
    plan = _with_classes(encoder, execution.prompts)
    batch = print_network(request, "adapter" if plan.adapter else "model", plan, spec.precision, remark)
    note = plan.fit_note(tables[0].geometry.patch_px, tables[0].geometry.mpp)
    if note:
        request.console.note(note)
    no_crop = request.get(QuPathOptions).qupath_no_crop
    how = (execution.device, batch, execution.store, execution.compile, no_crop)
    return ClassifyStage(request.run_dir, spec, plan, *how)


def _with_classes(plan: EncoderPlan, prompts: str | None) -> PathoTunePlan | ZeroShotPlan:
    """The plan of a classifier. Raises EncoderError if the encoder has no classes, or the model takes no text."""
    if prompts is not None:
        from wsi_pipeline.encoders.hf_models.zero_shot import ZeroShotPlan

        if isinstance(plan, PathoTunePlan):
            raise UsageError(
                f"--prompts is for image-text models, and {plan.info.name} has its own classes",
                todo="Leave --prompts out, or name the model with --model.",
            )
        return ZeroShotPlan(plan, read_prompts(read_yaml(Path(prompts)), prompts))
    if not isinstance(plan, PathoTunePlan):
        raise EncoderError(
            f"{plan.info.name} has no classes; classify needs pathotune, pathotune:NAME, or --prompts FILE with an "
            "image-text model"
        )
    return plan


def _print_result(request: Request, result: CohortResult) -> None:
    console, last = request.console, list(result.last.values())
    rows = [_row(item) for item in last]
    hidden = len(rows) - MOST_ROWS
    if hidden > 0:  # a long cohort shows only what needs attention
        rows = [line for line in rows if line[-1]][:MOST_ROWS]
    console.table(("slide", "patches", "classes", "note"), rows, right=(1,))
    if hidden > 0:
        console.say(f"... of {counted(len(last), 'slide')}, only those with a note are shown")
    print_redone(request, result)
    done = [item for item in last if item.action in ("made", "fresh")]
    print_end(request, result, _gather(request, done) if done else "nothing was classified")


def _gather(request: Request, done: Sequence[StageResult]) -> str:
    """Write fractions.csv over all slides of the run; return a summary of the outputs."""
    run, model = request.run_dir, request.get(ClassifySpec).model
    cohort = request.known_cohort()
    first = next(record for record in cohort.records if record.slide_id == done[0].slide_id)
    like = current_header(run, model, first)
    folder = shown(run.classify(model))
    if like is None:  # another process has recomputed its patches meanwhile
        return f"{counted(len(done), 'slide')} in {folder}/"
    found = write_fractions(run, model, cohort.records, like)
    if found.left_out:
        request.console.note(
            f"left out of fractions.csv as classified with another adapter or other settings: "
            f"{counted(len(found.left_out), 'slide')}; run wsi-pipeline classify on them again"
        )
    return (
        f"{counted(len(done), 'slide')} in {folder}/ · fractions of all {len(found.table)}: "
        f"{shown(run.fractions(model))} · polygons for QuPath: *.geojson · {request.next('report')}"
    )


def _row(result: StageResult) -> tuple[str, str, str, str]:
    """One row of the closing table: slide, patches, its most common classes, note."""
    status = result.status
    if result.action in ("failed", "blocked"):
        return result.slide_id, "-", "-", f"FAILED {status.reason}"
    summary = status.summary
    parts = {**summary["fractions"], **({"unclear": summary["unclear"]} if summary["unclear"] else {})}
    ranked = sorted(((part, name) for name, part in parts.items() if part), key=lambda item: -item[0])
    words = [f"{name} {percent(part)}" for part, name in ranked[:_MOST_CLASSES]]
    words += ["..."] if len(ranked) > _MOST_CLASSES else []
    return result.slide_id, grouped(int(summary["patches"])), ", ".join(words) or "-", status.note
