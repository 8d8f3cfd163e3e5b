"""`embed-slides`: pool the patch features of each slide into one vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import existing_store, slug
from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.tile import print_end, print_redone
from wsi_pipeline.config.slide_options import EmbedSlidesExecution
from wsi_pipeline.config.specs import EmbedSlidesSpec
from wsi_pipeline.encoders.slide_zoo.plan_slide import SlideLayoutPlan, plan_slide
from wsi_pipeline.encoders.slide_zoo.slide_facts import MEAN, find_slide_preset
from wsi_pipeline.errors import MilError, UsageError
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.stages.embed_slides import (
    NAME,
    EmbedSlidesStage,
    PlanPooling,
    SlidePooling,
    TrainedPooling,
    write_embeddings,
)
from wsi_pipeline.stages.engine.runner import CohortResult, run_cohort
from wsi_pipeline.stages.results.trainings import require_training
from wsi_pipeline.wording import counted, listed


def embed_slides(request: Request) -> int:
    """Embed every slide with features by one slide encoder, for each patch encoder it accepts."""
    cohort = request.known_cohort()
    records, (pooling, encoders) = request.select(cohort), _chosen(request)
    results: list[CohortResult] = []
    for encoder in encoders:
        stage = EmbedSlidesStage(request.run_dir, encoder, pooling, request.get(EmbedSlidesExecution).store)
        results.append(_embed(request, stage, records))
        _print_result(request, stage, results[-1], _table(request, stage, results[-1], cohort.records))
    return EXIT_SOME_FAILED if any(result.failed for result in results) else EXIT_DONE


def _chosen(request: Request) -> tuple[SlidePooling, Sequence[str]]:
    """The slide encoder, and the patch encoders whose features it is applied to."""
    spec, execution, run = request.get(EmbedSlidesSpec), request.get(EmbedSlidesExecution), request.run_dir
    found, wanted = run.patch_encoders(), execution.features
    if spec.trained is None and spec.model != MEAN:
        find_slide_preset(spec.model)  # a wrong name is told before the features it would need
    if not found:
        raise UsageError("no features in this run", todo="Run first: wsi-pipeline embed, or import features")
    if wanted is not None and slug(wanted) not in found:
        raise UsageError(f"no features of {wanted} in this run", todo=f"Features exist for: {', '.join(found)}")
    named = (slug(wanted),) if wanted is not None else found
    if spec.trained is not None:
        return _of_training(Path(spec.trained), execution, named)
    plan = plan_slide(spec.model, Path(execution.weights) if execution.weights else None)
    if isinstance(plan, SlideLayoutPlan):
        preset, taken = plan.preset, tuple(name for name in named if plan.takes(name))
        if not taken:
            raise UsageError(
                f"{preset.title} takes features of {' or '.join(preset.encoders)}; those here are of "
                f"{listed(list(named))}",
                todo=f"Run first: wsi-pipeline embed --model {preset.encoders[0]}",
            )
        named = taken
        _ = plan.fingerprint  # missing weights stop the command, not each slide
        request.console.fact("licence", f"{preset.licence}{', access on request' * (preset.gate == 'request')}")
    return PlanPooling(plan, execution.device), named


def _of_training(
    folder: Path, execution: EmbedSlidesExecution, named: Sequence[str]
) -> tuple[TrainedPooling, Sequence[str]]:
    if execution.weights is not None:
        raise UsageError("weights belong to a published slide encoder, not to trained")
    training = require_training(folder)
    ensemble = load_ensemble(training.folder)
    encoder = slug(str(ensemble.encoder["name"]))
    if encoder not in named:
        raise UsageError(
            f"the model was trained on features of {encoder}; those here are of {listed(list(named))}",
            todo=f"Run first: wsi-pipeline embed --model {ensemble.encoder['name']}",
        )
    return TrainedPooling(training, ensemble, execution.device), (encoder,)


def _embed(request: Request, stage: EmbedSlidesStage, records: Sequence[SlideRecord]) -> CohortResult:
    run = request.run_dir
    ready = [one for one in records if existing_store(run.feature_store(stage.encoder, one.slide_id)) is not None]
    missing = [record.slide_id for record in records if record not in ready]
    if missing:
        request.console.note(
            f"{counted(len(missing), 'slide')} without features of {stage.encoder}, not embedded: {listed(missing)}"
        )
    with request.console.progress(f"{NAME} {stage.folder}", len(ready), "slides") as step:
        return run_cohort([stage], run, ready, workers=0, on_result=lambda results: step(1))


def _table(
    request: Request, stage: EmbedSlidesStage, result: CohortResult, cohort: Sequence[SlideRecord]
) -> Path | None:
    """Write embeddings.csv of the whole cohort, unless it includes slides that another call has yet to recompute."""
    if not any(item.status.state == "done" for item in result.last.values()):
        return None
    try:
        return write_embeddings(request.run_dir, stage.folder, cohort)
    except MilError as error:
        request.console.note(f"{shown(request.run_dir.embeddings_csv(stage.folder))} is not written: {error.what}")
        return None


def _print_result(request: Request, stage: EmbedSlidesStage, result: CohortResult, table: Path | None) -> None:
    request.console.table(
        ("slide", "note"),
        [(item.slide_id, f"FAILED {item.status.reason}") for item in result.failed][:MOST_ROWS],
    )
    print_redone(request, result)
    done = sum(item.status.state == "done" for item in result.last.values())
    if table is None:
        print_end(request, result, f"{counted(done, 'slide')} embedded")
        return
    after = f"train-mil --model linear --features {stage.folder}"
    where = f"{counted(done, 'slide')} in {shown(table.parent)}/ and {table.name}"
    print_end(request, result, f"{where} · {request.next(after)}" if done else where)
