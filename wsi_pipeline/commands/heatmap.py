"""`heatmap`: draw the attention of trained models over each slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import POOLED_MARK, existing_store, slug
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.config.execution import MilExecution, QuPathOptions, usable_cores
from wsi_pipeline.config.registries import EVEN_MODELS
from wsi_pipeline.config.specs import HeatmapSpec
from wsi_pipeline.errors import UsageError
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.engine.runner import StageResult, run_cohort
from wsi_pipeline.stages.heatmap import HeatmapStage
from wsi_pipeline.stages.outputs.ground import NO_COORDINATES, frame_of
from wsi_pipeline.stages.results.trainings import read_training, trainings
from wsi_pipeline.store.schema import FEATURE_FORMAT
from wsi_pipeline.wording import counted


def heatmap(request: Request) -> int:
    """Draw the attention of every trained model of the run over every slide with features."""
    cohort = request.known_cohort()
    wanted = request.get(MilExecution).features
    # Features of prompts tuned in each fold are not stored: there is nothing to draw from.
    drawn = [training for training in trainings(request.run_dir) if "prompts" not in training.metrics]
    models = [(training.folder.parent.name, training.folder.name) for training in drawn]
    models = [(encoder, model) for encoder, model in models if wanted is None or encoder == slug(wanted)]
    if not models:
        raise UsageError("no trained model in this run", todo="Train one with: wsi-pipeline train-mil")
    records, spec = request.select(cohort), request.get(HeatmapSpec)
    workers = min(16, usable_cores())
    failed = draw(request, records, models, spec, workers)
    for encoder, model in models:
        folder = request.run_dir.heatmap(encoder, model, "slide").parent
        request.console.say(f"pictures, outlines for QuPath, values: {shown(folder)}/ · {request.next('report')}")
    return EXIT_SOME_FAILED if failed else EXIT_DONE


WORTH_WORKERS = 32
"""Fewer slides are drawn in one process: starting others takes as long as drawing a dozen."""
MOST_NAMED = 5
"""Slides without a heatmap that are named, each with its reason."""


def has_places(store: Path | None) -> bool:
    """Whether the rows of a feature store have coordinates; assumed if the store cannot be read."""
    header = read_header(store, FEATURE_FORMAT) if store else None
    return header is None or frame_of(header) != "none"


def draw(
    request: Request,
    records: Sequence[SlideRecord],
    models: Sequence[tuple[str, str]],
    spec: HeatmapSpec | None = None,
    workers: int = 0,
) -> int:
    """Draw heatmaps of models, (encoder, model) folder names; returns how many slides failed.

    workers   processes, one slide each at a time, if there are many slides; fewer than 2: draw in this process

    All models of a slide are drawn one after the other, so that it is opened and read once.
    """
    no_crop = request.get(QuPathOptions).qupath_no_crop
    stages = {
        (encoder, model): HeatmapStage(request.run_dir, encoder, model, spec=spec, no_crop=no_crop)
        for encoder, model in models
    }
    ready = {key: _ready(request, records, key[0]) for key in stages}
    groups: dict[tuple[tuple[str, str], ...], list[SlideRecord]] = {}
    for record in records:
        of_slide = tuple(key for key, ids in ready.items() if record.slide_id in ids)
        if of_slide:
            groups.setdefault(of_slide, []).append(record)
    if not groups:
        return 0
    _say_even(request, models)
    failed: list[StageResult] = []
    slides = sum(len(group) for group in groups.values())
    title = f"heatmap {models[0][0]}" if len(stages) == 1 else "heatmap"
    with request.console.progress(title, slides, "slides") as step:
        for keys, group in groups.items():
            result = run_cohort(
                [stages[key] for key in keys],
                request.run_dir,
                group,
                workers=workers if workers > 1 and len(group) >= WORTH_WORKERS else 0,
                on_result=lambda results: step(1),
            )
            failed += result.failed
    for item in failed[:MOST_NAMED]:
        request.console.note(f"no heatmap of {item.slide_id}: {item.status.reason}")
    if more := failed[MOST_NAMED:]:
        where = shown(request.run_dir.root / "status")
        request.console.note(f"no heatmap of {counted(len(more), 'more slide')}: the reasons are in {where}/")
    return len(failed)


def _say_even(request: Request, models: Sequence[tuple[str, str]]) -> None:
    """Say of which models a heatmap shows nothing."""
    found = {model: read_training(request.run_dir.mil(encoder, model)) for encoder, model in models}
    for model, training in found.items():
        if training is not None and training.metrics.get("model") in EVEN_MODELS:
            request.console.note(f"{model} counts all patches of a slide the same: its heatmaps show no differences")


def _ready(request: Request, records: Sequence[SlideRecord], encoder: str) -> set[str]:
    """Ids of the slides that have features of an encoder with coordinates; says how many have none."""
    if POOLED_MARK in encoder:
        request.console.note(f"no heatmap: {encoder} has one vector per slide, none per patch")
        return set()
    stores = {
        record.slide_id: existing_store(request.run_dir.feature_store(encoder, record.slide_id)) for record in records
    }
    ready = {slide_id for slide_id, store in stores.items() if store and has_places(store)}
    bare = sum(path is not None for path in stores.values()) - len(ready)
    if bare:
        request.console.note(f"no heatmap of {counted(bare, 'slide')}: {NO_COORDINATES}")
    return ready
