"""`train-mil`: train and validate slide-level models, print their metrics, draw heatmaps, write the report."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.cohort.clinical.clinical_table import ClinicalTable
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, slug
from wsi_pipeline.cohort.tables.patient_doubts import doubt_words
from wsi_pipeline.commands.exchange.bring_in import bring_in_features, given_by
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
from wsi_pipeline.commands.shell.questions import (
    Question,
    clinical_table,
    doubts_of,
    for_import,
    for_run,
    questions,
    with_clinical_patients,
)
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.shell.target_text import print_targets
from wsi_pipeline.commands.tile import print_todos
from wsi_pipeline.config.execution import ClinicalOptions, FeaturesFrom, LabelsOptions, MilExecution, TrainingOptions
from wsi_pipeline.config.prompt_spec import PromptSpec
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, UsageError, WsiPipelineError
from wsi_pipeline.mil.validation.crossval import TrainingProgress
from wsi_pipeline.stages.inputs.outcome_source import check_patients
from wsi_pipeline.stages.inputs.slide_bags import SlideBags, gather
from wsi_pipeline.stages.inputs.target_bags import TargetBags, target_bags
from wsi_pipeline.stages.results.trainings import Training
from wsi_pipeline.stages.train_mil import train
from wsi_pipeline.statistics.metric_words import metric_words, target_name
from wsi_pipeline.wording import NOT_KNOWN, counted, tested_words


def train_mil(request: Request) -> int:
    """Cross-validate a slide-level model for each target on each encoder's features, draw attention, write the report.

    A target that cannot be trained does not stop the others; the exit code is then 3, as it is if features of a slide
    could not be imported.
    """
    table = clinical_table(request)
    brought, code = _bring_in(request, table)
    cohort = with_clinical_patients(request, for_run(request, table).known_cohort(), table)
    check_patients(doubt_words(cohort))
    records = request.select(cohort)
    asked = questions(request, cohort, records, table)
    for question in asked:
        check_patients(doubts_of(cohort, question))
    done: list[Training] = []
    failed: list[tuple[str, WsiPipelineError]] = []
    for encoder in [brought] if brought else _encoders(request):
        bags = _gathered(request, records, encoder, asked)
        for question in asked:
            try:
                done.append(_train_one(request, encoder, question, bags))
            except (MilError, UsageError) as error:
                if len(asked) == 1:
                    raise
                failed.append((f"{encoder}, {question.shown}", error))
                request.console.note(f"{question.shown} not trained: {error.what}")
    if not done:
        raise MilError("none of the targets can be trained", todo=_why_failed(failed))
    _print_results(request, done, several=len(asked) > 1)
    for training in done:
        encoder, model = training.folder.parts[-2:]
        if "prompts" in training.metrics:
            request.console.note(f"no heatmap of {model}: its features are tuned in each fold and not stored")
            continue
        draw(request, records, [(encoder, model)])
    write_cohort_report(request, cohort)
    if failed:
        request.console.say(f"{counted(len(failed), 'target')} not trained:\n{_why_failed(failed)}")
    return EXIT_SOME_FAILED if failed else code


def _bring_in(request: Request, table: ClinicalTable | None) -> tuple[str, int]:
    """Import what --features-from names. Returns the encoder's folder ("" without the option) and the exit code."""
    options = request.get(FeaturesFrom)
    if options.features_from is None:
        if request.get(LabelsOptions) != LabelsOptions():
            raise UsageError(
                "label_column, mixed_labels and default_mpp concern the table of --features-from, which is missing",
                todo="Another label for this run: --clinical TABLE --target COLUMN",
            )
        return "", EXIT_DONE
    clinical = request.get(ClinicalOptions).clinical
    if options.labels is None and clinical is None and not request.run_dir.cohort_csv.is_file():
        raise UsageError(
            "features_from needs labels to train on",
            todo="Name a CSV with a slide_id and a label (--labels labels.csv), or a clinical table (--clinical FILE)",
        )
    asked = for_import(request, table, options.labels)
    given = given_by(asked, options.features_from, labels=options.labels, encoder=options.encoder)
    brought = bring_in_features(asked, given)
    print_todos(request, brought.result)
    return slug(brought.plan.encoder), EXIT_SOME_FAILED if brought.result.failed else EXIT_DONE


def _why_failed(failed: Sequence[tuple[str, WsiPipelineError]]) -> str:
    return "\n".join(f"  {name}: {error.what}{f'. {error.todo}' if error.todo else ''}" for name, error in failed)


def _gathered(request: Request, records: Sequence[SlideRecord], encoder: str, asked: Sequence[Question]) -> TargetBags:
    """Read the features once and make the folds that several targets share; print which targets share them."""
    slides = gather(request.run_dir, records, encoder)
    bags = target_bags(slides, {question.name: (question.records, question.spec) for question in asked})
    together = [question.shown for question in asked if question.name in bags.folds]
    if together:
        request.console.fact("folds", f"{encoder}: {', '.join(together)} share the same patient folds")
    return bags


def _train_one(request: Request, encoder: str, question: Question, bags: TargetBags) -> Training:
    spec, slides = question.spec, bags.of(question.name, question.records, question.spec, question.source)
    request.console.fact("bags", f"{_what(encoder, question)}: {_bag_words(slides, spec)}{left_out_words(slides)}")
    with request.console.progress(f"{encoder} {question.name}", spec.folds * spec.epochs, "epochs") as step:
        reached: dict[int, int] = {}

        def on_epoch(progress: TrainingProgress) -> None:
            step.total = progress.n_folds * progress.max_epochs
            reached[progress.fold] = progress.epoch.epoch
            step(sum(reached.values()) - step.done)

        name = question.name if question.source.clinical or request.get(TrainingOptions).name is not None else None
        replace, device = request.get(TrainingOptions).replace, request.get(MilExecution).device
        prompts = request.get(PromptSpec)
        if prompts.tune_prompts:
            from wsi_pipeline.stages.outputs.prompt_training import PromptRun, train_with_prompts

            job = PromptRun(request.run_dir, encoder, question.records, prompts, name, replace, device, step.print_line)
            training = train_with_prompts(job, slides, spec, on_epoch)
        else:
            training = train(
                request.run_dir, encoder, slides, spec, name=name, replace=replace, device=device, progress=on_epoch
            )
        step(step.total - step.done)
    if training.fresh:
        request.console.say(f"{shown(training.folder)} up to date")
    if training.former is not None:
        request.console.note(
            f"{shown(training.folder)} was retrained; the previous result is kept in {shown(training.former)}"
        )
    return training


def _what(encoder: str, question: Question) -> str:
    return f"{encoder}, {question.shown}" if question.source.clinical else encoder


def _bag_words(slides: SlideBags, spec: MilSpec) -> str:
    noun = "slide" if spec.bag == "slide" else "patient"
    return f"{counted(len(slides.table), noun)} usable"


def _encoders(request: Request) -> tuple[str, ...]:
    RunDir.existing(request.run_dir.root)
    wanted, found = request.get(MilExecution).features, request.run_dir.require_encoders()
    if wanted is None:
        return request.run_dir.patch_encoders() or found
    return (request.run_dir.require_encoder(wanted),)


def _print_results(request: Request, done: Sequence[Training], *, several: bool) -> None:
    """Print the table of metrics with intervals, the settings chosen, warnings, and where the results are."""
    first = done[0].metrics
    if several:
        print_targets(request, done)
    else:
        _print_metrics(request, done)
    for training in done:
        prefix = f"{training.metrics['encoder']}: " if len({t.metrics["encoder"] for t in done}) > 1 else ""
        prefix += f"{target_name(training.metrics)}: " if several else ""
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
    if len(done) > 1 and not several:
        a, b = (shown(training.folder) for training in done[:2])
        request.console.say(f"next: wsi-pipeline compare {a} {b}")


def _print_metrics(request: Request, done: Sequence[Training]) -> None:
    first = done[0].metrics
    names = list(first["pooled"])[:MOST_METRICS]
    rows = [
        [m["encoder"], m.get("name") or m["model"], *(cell(m, name) for name in names)]
        for m in (t.metrics for t in done)
    ]
    if first.get("chance"):
        rows.append(["(chance)", "", *(number(first, first["chance"].get(name)) for name in names)])
    request.console.table(("encoder", "model", *(metric_words(name) for name in names)), rows)
