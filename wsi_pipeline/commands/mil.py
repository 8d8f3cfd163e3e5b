"""`train-mil`, `predict`, `heatmap`: slide-level models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.cohort.rundir import RunDir, existing_store, slug
from wsi_pipeline.commands.embed import embed
from wsi_pipeline.commands.request import EXIT_DONE, EXIT_SOME_FAILED, Request, plural, shown
from wsi_pipeline.commands.tile import tile
from wsi_pipeline.errors import MilError, UsageError
from wsi_pipeline.execution import CohortOptions, EmbedExecution, MilExecution, PredictOptions, TileExecution
from wsi_pipeline.fields import from_mapping
from wsi_pipeline.mil import novelty
from wsi_pipeline.mil.checkpoint import Ensemble, load_ensemble
from wsi_pipeline.mil.crossval import Progress
from wsi_pipeline.specs import EmbedSpec, HeatmapSpec, MilSpec, SegmentSpec, TileSpec
from wsi_pipeline.stages.adapters import adapter_of_model
from wsi_pipeline.stages.bags import SlideBags, gather
from wsi_pipeline.stages.heatmap import HeatmapStage
from wsi_pipeline.stages.predict import predict_slides
from wsi_pipeline.stages.report import write_report
from wsi_pipeline.stages.runner import run_cohort
from wsi_pipeline.stages.train_mil import Training, train, trainings

SHOWN = ("auroc", "balanced_accuracy", "macro_f1", "accuracy")


def train_mil(request: Request) -> int:
    """Cross-validate a slide-level model on each encoder's features, draw attention, write the report."""
    cohort = request.known_cohort()
    records = request.select(cohort)
    done = [_train_one(request, records, encoder) for encoder in _encoders(request)]
    _tell_metrics(request, done)
    for training in done:
        encoder, model = training.folder.parts[-2:]
        _draw(request, records, encoder, model)
    _report(request, cohort)
    return EXIT_DONE


def heatmap(request: Request) -> int:
    """Draw the attention of every trained model of the run over every slide with features."""
    cohort = request.known_cohort()
    wanted = request.get(MilExecution).features
    models = [training.folder.parts[-2:] for training in trainings(request.run_dir)]
    models = [(encoder, model) for encoder, model in models if wanted is None or encoder == slug(wanted)]
    if not models:
        raise UsageError("no trained model in this run", todo="Train one with: wsi-pipeline train-mil")
    records, spec = request.select(cohort), request.get(HeatmapSpec)
    failed = sum(_draw(request, records, encoder, model, spec) for encoder, model in models)
    for encoder, model in models:
        folder = request.run_dir.heatmap(encoder, model, "slide").parent
        request.console.say(f"pictures, outlines for QuPath, values: {shown(folder)}/ · next: wsi-pipeline report")
    return EXIT_SOME_FAILED if failed else EXIT_DONE


def predict(request: Request) -> int:
    """Apply a trained model: to this run's slides or, where slides are named, to those, tiled and embedded first."""
    folder = _trained_folder(request)
    ensemble = load_ensemble(folder)
    request.console.fact("model", f"{shown(folder)}: {', '.join(ensemble.classes)}; {len(ensemble.models)} folds")
    code = _prepare(request, ensemble, folder) if request.sources else EXIT_DONE
    records = request.select(request.known_cohort())
    device, known = request.get(PredictOptions).device, novelty.load(folder)
    table, path, slides = predict_slides(request.run_dir, records, ensemble, device, known)
    columns = ["slide_id", "predicted", *(f"p_{name}" for name in ensemble.classes), "spread"]
    columns += [name for name in novelty.COLUMNS if name in table]
    rows = [[value if isinstance(value, str) else f"{value:.3f}" for value in row] for row in table[columns].values]
    request.console.table(columns, rows[:40], right=range(2, len(columns)))
    _tell_left_out(request, slides)
    request.console.say(f"{plural(len(table), 'slide')} in {shown(path)}")
    return code


def _train_one(request: Request, records: Sequence[SlideRecord], encoder: str) -> Training:
    spec = request.get(MilSpec)
    slides = gather(request.run_dir, records, encoder).labelled()
    request.console.fact("bags", f"{encoder}: {plural(len(slides.table), 'slide')} usable{_left_out(slides)}")
    if not len(slides.table):
        raise MilError("no slide has a label", todo="Add a column `label` to the CSV, then run: wsi-pipeline tile")
    with request.console.progress(f"{encoder} {spec.model}", spec.folds * spec.epochs, "epochs") as step:

        def on_epoch(progress: Progress) -> None:
            step.total = progress.n_folds * progress.max_epochs
            step(progress.fold * progress.max_epochs + progress.epoch.epoch + 1 - step.done)

        device = request.get(MilExecution).device
        training = train(request.run_dir, encoder, slides, spec, device=device, progress=on_epoch)
        step(step.total - step.done)
    if training.fresh:
        request.console.say(f"{shown(training.folder)} up to date")
    return training


def _encoders(request: Request) -> tuple[str, ...]:
    RunDir.existing(request.run_dir.root)
    wanted, found = request.get(MilExecution).features, request.run_dir.encoders()
    if not found:
        raise UsageError("no features in this run", todo="Run first: wsi-pipeline embed --model pathotune")
    if wanted is None:
        return found
    if slug(wanted) not in found:
        raise UsageError(f"no features of {wanted} in this run", todo=f"There are: {', '.join(found)}")
    return (slug(wanted),)


def _tell_metrics(request: Request, done: Sequence[Training]) -> None:
    rows = [
        [training.metrics["encoder"], training.metrics["model"], *(_cell(training.metrics, name) for name in SHOWN)]
        for training in done
    ]
    request.console.table(("encoder", "model", *(name.replace("_", " ") for name in SHOWN)), rows)
    for sentence in dict.fromkeys(text for training in done for text in training.metrics.get("warnings", ())):
        request.console.note(sentence)
    interval = done[0].metrics["interval"]
    request.console.say(
        f"each slide tested by a model that never saw its patient; [95 % intervals] by {interval['resamples']} "
        "bootstrap resamples over patients"
    )
    for training in done:
        request.console.say(f"models, predictions, metrics: {shown(training.folder)}/")


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    value = metrics["pooled"].get(name) or {}
    if value.get("value") is None:
        return "undefined"
    if value.get("low") is None or value.get("high") is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _draw(
    request: Request, records: Sequence[SlideRecord], encoder: str, model: str, spec: HeatmapSpec | None = None
) -> int:
    """Draw heatmaps of one model; returns how many slides failed."""
    run = request.run_dir
    ready = [record for record in records if existing_store(run.feature_store(encoder, record.slide_id))]
    with request.console.progress(f"heatmap {encoder}", len(ready), "slides") as step:
        stage = HeatmapStage(run, encoder, model, spec=spec)
        result = run_cohort([stage], run, ready, workers=0, on_result=lambda results: step(1))
    for item in result.failed:
        request.console.note(f"no heatmap of {item.slide_id}: {item.status.reason}")
    return len(result.failed)


def _report(request: Request, cohort: Cohort) -> None:
    request.console.say(f"open the report: {shown(write_report(request.run_dir, cohort))}")


def _left_out(slides: SlideBags) -> str:
    """` (s03: empty; 2 slides: failed in tile)`."""
    reasons: dict[str, list[str]] = {}
    for slide, why in slides.left_out.items():
        reasons.setdefault(why, []).append(slide)
    parts = [f"{ids[0] if len(ids) == 1 else plural(len(ids), 'slide')}: {why}" for why, ids in reasons.items()]
    return f" ({'; '.join(parts)})" if parts else ""


def _tell_left_out(request: Request, slides: SlideBags) -> None:
    if slides.left_out:
        request.console.note(f"not predicted{_left_out(slides)}")


def _trained_folder(request: Request) -> Path:
    named = request.get(PredictOptions).trained
    if named:
        return Path(named)
    found = trainings(request.run_dir)
    if len(found) == 1:
        return found[0].folder
    if not found:
        raise UsageError("no trained model in this run", todo="Name one with --trained FOLDER, or run train-mil first")
    folders = "\n".join(f"  --trained {shown(training.folder)}" for training in found)
    raise UsageError(f"this run has {len(found)} trained models; choose one:\n{folders}")


def _prepare(request: Request, ensemble: Ensemble, folder: Path) -> int:
    """Tile and embed the slides named, with the settings the model was trained on."""
    specs = ensemble.provenance["specs"]
    settings = [
        from_mapping(kind, specs[name], f"settings of the trained model ({name})")
        for kind, name in ((SegmentSpec, "segment"), (TileSpec, "tile"), (EmbedSpec, "embed"))
    ]
    options = request.get(PredictOptions)
    recorded = str(ensemble.provenance.get("adapter", ""))
    # Found before any slide is tiled: a model without its encoder has nothing to say of them.
    adapter = adapter_of_model(ensemble.encoder, recorded, folder, request.run_dir, options.adapter)
    execution = EmbedExecution(adapter=adapter, weights=options.weights, device=options.device)
    both = request.with_options(request.get(CohortOptions), request.get(TileExecution), execution, *settings)
    tiled = tile(both)
    embedded = embed(replace(both, sources=()))
    return max(tiled, embedded)
