"""Shared by `embed` and `classify`: a network applied to the patches of every tiled slide of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.commands.shell.request import Request
from wsi_pipeline.config.execution import EmbedExecution
from wsi_pipeline.encoders.encoder import Encoder, EncoderPlan
from wsi_pipeline.encoders.probe import WORTH_PATCHES, probe_batch
from wsi_pipeline.errors import StoreError, UsageError
from wsi_pipeline.stages.engine.known_files import known_files, look_up
from wsi_pipeline.stages.engine.runner import CohortResult, StageResult, blocked, failure
from wsi_pipeline.stages.streaming.devices import PlacedStage, stream_on
from wsi_pipeline.stages.streaming.reader_client import warm_up
from wsi_pipeline.stages.streaming.reader_process import Reading
from wsi_pipeline.stages.streaming.stream import Survey, Watchers, survey
from wsi_pipeline.store.tables.patch_table import PatchFacts, read_patch_facts
from wsi_pipeline.system.device import choose_device, list_devices
from wsi_pipeline.wording import counted

_NEEDS = ("segment", "tile")


class NetworkStage(PlacedStage, Protocol):
    """A stage whose network can be loaded before the first slide.

    batch   patches in one batch
    """

    batch: int

    @property
    def encoder(self) -> Encoder:
        """The network, loaded on first use."""


def over_patches(
    request: Request, command: str, done: str, make: Callable[[Sequence[PatchFacts]], Sequence[NetworkStage]],
    check: Callable[[], None],
) -> CohortResult:  # fmt: skip
    """Run stages on every tiled slide in one pass; slides that failed earlier are in the results as blocked.

    command   name of the command, for progress
    done      participle of the command, for the note about slides not tiled yet
    make      creates the stages from what is known of the slides' patches; not called if there are none
    check     called instead of `make` then: raises an error for names that are wrong whatever the slides are

    Raises UsageError if no slide was tiled, and any error that stops all slides: weights are missing or do not fit.
    """
    records = request.select(request.known_cohort())
    if not records:  # more chunks than slides
        return CohortResult()
    ready, kept_back = _sort_out(records, request.run_dir, command)
    if not ready:
        check()
        if not kept_back:
            raise UsageError("no slide of this run has been tiled", todo="Run first: wsi-pipeline tile slides.csv")
        return CohortResult(tuple(kept_back))
    stages = make([facts for _, facts in ready])
    result = CohortResult((*_stream(request, command, stages, ready).results, *kept_back))
    waiting = len(records) - len(result.last)
    if waiting:
        request.console.note(f"not tiled yet, so not {done}: {counted(waiting, 'slide')}; run wsi-pipeline tile first")
    return result


def _stream(
    request: Request, command: str, stages: Sequence[NetworkStage], ready: Sequence[tuple[SlideRecord, PatchFacts]]
) -> CohortResult:
    execution = request.get(EmbedExecution)
    devices = list_devices(execution.devices) if execution.devices else ()
    if len(devices) == 1:
        for stage in stages:
            stage.device = devices[0]
    todo = survey(stages, request.run_dir, ready)
    patch_px = max(facts.geometry.patch_px for _, facts in ready)
    if todo.patches:
        warm_up()
        _load(request, stages, devices, todo, patch_px)
    decode_on = _decoder(execution, devices)
    reading = Reading(patch_px, max(stage.batch for stage in stages), execution.threads, decode_on=decode_on)
    with request.console.progress(command, todo.patches, "patches") as step:
        records = [record for record, _ in ready]
        return stream_on(devices, stages, request.run_dir, records, todo, reading, Watchers(step))


def _decoder(execution: EmbedExecution, devices: Sequence[str]) -> str:
    """The device that decodes JPEG patches; "" unless requested."""
    if not execution.gpu_decode:
        return ""
    chosen = [*devices] or [str(choose_device(execution.device))]
    if not all(name.startswith("cuda") for name in chosen):
        raise UsageError(f"gpu_decode needs a CUDA device, got {', '.join(chosen)}", todo="Leave --gpu-decode out.")
    return chosen[0]


def _load(
    request: Request, stages: Sequence[NetworkStage], devices: Sequence[str], todo: Survey, patch_px: int
) -> None:
    """Load the networks and measure the best batch size. Unusable weights are refused here, once."""
    if len(devices) > 1:
        request.console.fact("devices", ", ".join(devices))
    for stage, part in zip(stages, request.each(), strict=True):
        if len(devices) > 1:
            stage.device = devices[0]
        encoder, asked = stage.encoder, part.get(EmbedExecution).batch
        if asked is None and todo.patches >= WORTH_PATCHES * len(stages) and encoder.batches:
            found = probe_batch(encoder, patch_px)
            stage.batch = found.batch
            request.console.fact("batch", f"{found}")


def print_network(request: Request, fact: str, plan: EncoderPlan, precision: str, remark: str = "") -> int:
    """Print the network, its device and fingerprint; returns the patches per batch.

    Missing weights are refused here, once, not slide by slide.
    """
    console, execution = request.console, request.get(EmbedExecution)
    first, *more = plan.about()
    console.fact(fact, f"{plan.info.name}: {first}" + (f" ({remark})" if remark else ""))
    for line in more:
        console.fact("", line)
    fingerprint = plan.fingerprint
    device = list_devices(execution.devices)[0] if execution.devices else execution.device
    batch = execution.batch or plan.suggest_batch(device)
    console.fact("device", plan.describe(device, precision, batch))
    console.fact("weights", fingerprint[:16])
    return batch


def _sort_out(
    records: tuple[SlideRecord, ...], run: RunDir, stage: str
) -> tuple[list[tuple[SlideRecord, PatchFacts]], list[StageResult]]:
    """Slides with patches, and results for those without because an earlier stage failed.

    Slides that are not tiled yet are in neither list.
    """
    ready, kept_back = [], []
    for record in records:
        path = existing_store(run.patch_store(record.slide_id))
        failed = blocked(record, run, stage, _NEEDS)
        if failed is not None or path is None:
            kept_back += [failed] if failed else []
            continue
        try:
            ready.append((record, _facts(run, record, path)))
        except StoreError as error:
            kept_back.append(StageResult(record.slide_id, stage, "failed", failure(error)))
    return ready, kept_back


def _facts(run: RunDir, record: SlideRecord, path: Path) -> PatchFacts:
    """Of the patches of one slide. The rows of all slides of a cohort would not fit into memory."""
    with known_files(run.known(record.slide_id)):
        return PatchFacts.parse(look_up(path, "patches", lambda: read_patch_facts(path).as_json()))
