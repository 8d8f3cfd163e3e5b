"""`train-mil`: train and validate slide-level models, say what they are worth, draw and report."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, slug
from wsi_pipeline.cohort.tables.patient_doubts import doubt_words
from wsi_pipeline.commands.heatmap import draw
from wsi_pipeline.commands.report import write_cohort_report
from wsi_pipeline.commands.shell.estimate_text import (
    MOST_METRICS,
    MOST_WARNINGS,
    cell,
    facts,
    left_out_words,
    number,
    unit,
)
from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.config.execution import MilExecution, TrainingOptions
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, UsageError
from wsi_pipeline.mil.validation.crossval import TrainingProgress
from wsi_pipeline.stages.inputs.slide_bags import OUTCOMES, SlideBags, gather
from wsi_pipeline.stages.results.former import check_name
from wsi_pipeline.stages.results.trainings import Training, training_name
from wsi_pipeline.stages.train_mil import train
from wsi_pipeline.statistics.metric_words import metric_words
from wsi_pipeline.wording import NOT_KNOWN, counted, tested_words


def train_mil(request: Request) -> int:
    """Cross-validate a slide-level model on each encoder's features, draw attention, write the report."""
    cohort = request.known_cohort()
    for what, todo in doubt_words(cohort):
        raise MilError(f"{what}. Slides of one patient on both sides of a fold make every metric wrong", todo=todo)
    records = request.select(cohort)
    done = [_train_one(request, cohort, records, encoder) for encoder in _encoders(request)]
    _tell(request, done)
    for training in done:
        encoder, model = training.folder.parts[-2:]
        draw(request, records, encoder, model)
    write_cohort_report(request, cohort)
    return EXIT_DONE


def _train_one(request: Request, cohort: Cohort, records: Sequence[SlideRecord], encoder: str) -> Training:
    spec, place = request.get(MilSpec), request.get(TrainingOptions)
    name = check_name(place.name) if place.name is not None else training_name(spec, cohort.target_of(spec.task))
    slides = gather(request.run_dir, records, encoder).for_training(spec)
    request.console.fact("bags", f"{encoder}: {_bag_words(slides, spec)}{left_out_words(slides)}")
    if not len(slides.table):
        columns = " and ".join(f"`{name}`" for name in OUTCOMES[spec.task])
        raise MilError(f"no slide has {columns}", todo=f"Add {columns} to the CSV, then run: wsi-pipeline tile")
    with request.console.progress(f"{encoder} {name}", spec.folds * spec.epochs, "epochs") as step:
        reached: dict[int, int] = {}

        def on_epoch(progress: TrainingProgress) -> None:
            step.total = progress.n_folds * progress.max_epochs
            reached[progress.fold] = progress.epoch.epoch
            step(sum(reached.values()) - step.done)

        device = request.get(MilExecution).device
        training = train(
            request.run_dir,
            encoder,
            slides,
            spec,
            name=name,
            replace=place.replace,
            patients=cohort.patients_stated,
            target=cohort.target_of(spec.task),
            device=device,
            progress=on_epoch,
        )
        step(step.total - step.done)
    if training.fresh:
        request.console.say(f"{shown(training.folder)} up to date")
    if training.former is not None:
        request.console.note(
            f"{shown(training.folder)} was retrained; the previous result is kept in {shown(training.former)}"
        )
    return training


def _bag_words(slides: SlideBags, spec: MilSpec) -> str:
    noun = "slide" if spec.bag == "slide" else "patient"
    return f"{counted(len(slides.table), noun)} usable"


def _encoders(request: Request) -> tuple[str, ...]:
    RunDir.existing(request.run_dir.root)
    wanted, found = request.get(MilExecution).features, request.run_dir.encoders()
    if not found:
        raise UsageError("no features in this run", todo="Run first: wsi-pipeline embed --model pathotune")
    if wanted is None:
        return found
    if slug(wanted) not in found:
        raise UsageError(f"no features of {wanted} in this run", todo=f"Features exist for: {', '.join(found)}")
    return (slug(wanted),)


def _tell(request: Request, done: Sequence[Training]) -> None:
    """Print the table of metrics with intervals, the choices made, warnings, and where the results are."""
    first = done[0].metrics
    names = list(first["pooled"])[:MOST_METRICS]
    rows = [
        [m["encoder"], m.get("name") or m["model"], *(cell(m, name) for name in names)]
        for m in (t.metrics for t in done)
    ]
    if first.get("chance"):
        rows.append(["(chance)", "", *(number(first, first["chance"].get(name)) for name in names)])
    request.console.table(("encoder", "model", *(metric_words(name) for name in names)), rows)
    for training in done:
        prefix = f"{training.metrics['encoder']}: " if len(done) > 1 else ""
        for name, text in facts(training.metrics):
            request.console.fact(name, prefix + text)
    warnings = list(dict.fromkeys(text for training in done for text in training.metrics.get("warnings", ())))
    for text in warnings[:MOST_WARNINGS]:
        request.console.note(text)
    if len(warnings) > MOST_WARNINGS:
        request.console.note(f"and {len(warnings) - MOST_WARNINGS} more, all in metrics.json")
    interval, patients = first["interval"], str(first.get("patients", "stated"))
    if patients == "not known":
        request.console.note(NOT_KNOWN)
    request.console.say(
        f"{tested_words(patients)}; [{100 * interval['level']:.0f} % intervals] by "
        f"{interval['resamples']} bootstrap resamples of {counted(first['n_patients'], unit(first))}"
    )
    for training in done:
        request.console.say(f"models, predictions, metrics: {shown(training.folder)}/")
    if len(done) > 1:
        a, b = (shown(training.folder) for training in done[:2])
        request.console.say(f"next: wsi-pipeline compare {a} {b}")
