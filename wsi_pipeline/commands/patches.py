"""What `embed` and `classify` have in common: a network on the patches of every tiled slide of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.rundir import RunDir, existing_store
from wsi_pipeline.cohort.status import StageStatus
from wsi_pipeline.commands.request import Request, plural
from wsi_pipeline.encoders.base import EncoderPlan
from wsi_pipeline.errors import StoreError, UsageError
from wsi_pipeline.execution import EmbedExecution
from wsi_pipeline.stages.runner import CohortResult, SlideStage, StageResult, blocked, run_cohort
from wsi_pipeline.store.patches import PatchTable, read_patches

_NEEDS = ("segment", "tile")


class PatchStage(SlideStage, Protocol):
    """A stage that takes the patches of a slide through a network."""

    def listen(self, on_patches: Callable[[int], None]) -> None:
        """Tell `on_patches` how many patches are done after every batch."""

    def load(self) -> None:
        """Load the network now."""

    def patches_to_do(self, record: SlideRecord, table: PatchTable) -> int:
        """How many patches of a slide have to go through it."""


def over_patches(
    request: Request, command: str, done: str, make: Callable[[Sequence[PatchTable]], PatchStage]
) -> CohortResult:
    """Take every tiled slide through a stage; those that failed earlier are among the results, as blocked.

    command   name of the command, for progress
    done      what is done to slides, as a participle, for the note on those not tiled yet
    make      makes the stage from the patch tables of the slides to come; not called where there are none

    Raises UsageError when no slide was tiled, and whatever stops all slides: weights that are missing or do not fit.
    """
    records = request.select(request.known_cohort())
    ready, kept_back = _sort_out(records, request.run_dir, command)
    if not ready:
        if not kept_back:
            raise UsageError("no slide of this run has been tiled", todo="Run first: wsi-pipeline tile slides.csv")
        return CohortResult(tuple(kept_back))
    stage = make([table for _, table in ready])
    total = sum(stage.patches_to_do(record, table) for record, table in ready)
    if total:
        stage.load()  # weights that do not fit are refused here, once, not slide by slide
    with request.console.progress(command, total, "patches") as step:
        stage.listen(step)
        result = run_cohort([stage], request.run_dir, [record for record, _ in ready], workers=0)
    result = CohortResult((*result.results, *kept_back))
    waiting = len(records) - len(result.last)
    if waiting:
        request.console.note(f"not tiled yet, so not {done}: {plural(waiting, 'slide')}; wsi-pipeline tile does it")
    return result


def tell_network(request: Request, fact: str, plan: EncoderPlan, precision: str, remark: str = "") -> int:
    """Say which network it is, where it computes and its fingerprint; returns the patches of one batch.

    Weights whose file is missing are refused here, once, not slide by slide.
    """
    console, execution = request.console, request.get(EmbedExecution)
    first, *more = plan.about()
    console.fact(fact, f"{plan.info.name}: {first}" + (f" ({remark})" if remark else ""))
    for line in more:
        console.fact("", line)
    fingerprint = plan.fingerprint
    batch = execution.batch or plan.suggest_batch(execution.device)
    console.fact("device", plan.describe(execution.device, precision, batch))
    console.fact("weights", fingerprint[:16])
    return batch


def _sort_out(
    records: tuple[SlideRecord, ...], run: RunDir, stage: str
) -> tuple[list[tuple[SlideRecord, PatchTable]], list[StageResult]]:
    """Slides that have patches, and results for those that have none because an earlier stage failed.

    Slides that are not tiled yet are in neither.
    """
    ready, kept_back = [], []
    for record in records:
        path = existing_store(run.patch_store(record.slide_id))
        failed = blocked(record, run, stage, _NEEDS)
        if failed is not None or path is None:
            kept_back += [failed] if failed else []
            continue
        try:
            ready.append((record, read_patches(path)))
        except StoreError as error:
            status = StageStatus("failed", error.what, error.todo or "")
            kept_back.append(StageResult(record.slide_id, stage, "failed", status))
    return ready, kept_back
