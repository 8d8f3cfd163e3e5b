"""`predict`: apply a trained slide-level model to slides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_pipeline.cohort.clinical.clinical_table import ClinicalTable
from wsi_pipeline.cohort.manifest import Cohort
from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.cohort.tables.columns import normalise
from wsi_pipeline.commands.embed import embed
from wsi_pipeline.commands.exchange.bring_in import bring_in_features, given_by
from wsi_pipeline.commands.shell.estimate_text import MOST_METRICS, MOST_WARNINGS, cell, facts, left_out_words, number
from wsi_pipeline.commands.shell.estimate_text import unit as resampled_unit
from wsi_pipeline.commands.shell.questions import (
    clinical_table,
    for_import,
    for_run,
    model_outcomes,
    with_clinical_patients,
)
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.tile import print_todos, tile
from wsi_pipeline.config.execution import (
    ClinicalOptions,
    CohortOptions,
    EmbedExecution,
    FeaturesFrom,
    PredictOptions,
    QuPathOptions,
    TableOptions,
    TileExecution,
)
from wsi_pipeline.config.fields import from_mapping
from wsi_pipeline.config.specs import EmbedSpec, SegmentSpec, TileSpec
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.trained import novelty
from wsi_pipeline.mil.trained.checkpoint import Ensemble, load_ensemble
from wsi_pipeline.mil.validation.external import SEEN
from wsi_pipeline.stages.inputs.find_adapter import adapter_of_model
from wsi_pipeline.stages.inputs.recorded_networks import recorded_networks
from wsi_pipeline.stages.inputs.slide_bags import SlideBags
from wsi_pipeline.stages.inputs.stain_files import with_recorded_target
from wsi_pipeline.stages.predict import Predicted, predict_slides, whole_patients
from wsi_pipeline.stages.results.trainings import read_training, trainings
from wsi_pipeline.statistics.metric_words import metric_words, target_name
from wsi_pipeline.wording import counted


def predict(request: Request) -> int:
    """Apply a trained model to this run's slides or, if slides are named, tile and embed those first."""
    folder = _trained_folder(request)
    ensemble = load_ensemble(folder)
    what = ", ".join(ensemble.classes) or ensemble.task.name
    request.console.fact("model", f"{shown(folder)}: {what}; {counted(len(ensemble.models), 'fold')}")
    clinical = clinical_table(request)
    code = _bring_in(request, ensemble, clinical)
    code = max(code, _prepare(request, ensemble, folder) if request.sources else EXIT_DONE)
    known_cohort = _cohort(request, folder, ensemble, clinical)
    cohort, records = known_cohort.records, request.select(known_cohort)
    unit = "patient" if ensemble.spec.bag == "patient" else "slide"
    if unit == "patient":
        records = whole_patients(records, cohort, first=request.chunk is not None)
    if not records:
        request.console.say(f"no {unit} in this part of the cohort")
        return code
    device, known = request.get(PredictOptions).device, novelty.load(folder)
    stated = known_cohort.patients_stated
    found = predict_slides(
        request.run_dir, records, ensemble, device, known, trained=folder, cohort=cohort, patients=stated
    )
    table = found.table
    known_before = ("slide_id", "patient_id", *ensemble.task.columns)
    columns = [f"{unit}_id", *(str(name) for name in table if name not in known_before)]
    rows = [[value if isinstance(value, str) else f"{value:.3f}" for value in row] for row in table[columns].values]
    request.console.table(columns, rows[:40], right=range(2, len(columns)))
    _note_left_out(request, found.slides)
    if found.metrics is None:  # else they are among its warnings
        for text in found.warnings:
            request.console.note(text)
    _note_trained_on(request, table[SEEN] == "yes", unit)
    if found.metrics is not None:
        _print_metrics(request, found.metrics, unit)
    _print_files(request, found, unit)
    return code


def _bring_in(request: Request, ensemble: Ensemble, clinical: ClinicalTable | None) -> int:
    """Import what --features-from names, as features of the model's encoder."""
    options = request.get(FeaturesFrom)
    if options.features_from is None:
        return EXIT_DONE
    if request.sources:
        raise UsageError("features_from cannot be combined with slides, whose features would be computed here")
    trained = str(ensemble.encoder["name"])
    asked = for_import(request, clinical, options.labels)
    given = given_by(asked, options.features_from, labels=options.labels, encoder=options.encoder)
    brought = bring_in_features(asked, given)
    print_todos(request, brought.result)
    if slug(brought.plan.encoder) != slug(trained):
        raise UsageError(
            f"the model was trained on features of {trained}, {given.where} holds those of {brought.plan.encoder}",
            todo="Name features of the same encoder",
        )
    return EXIT_SOME_FAILED if brought.result.failed else EXIT_DONE


def _cohort(request: Request, folder: Path, ensemble: Ensemble, clinical: ClinicalTable | None) -> Cohort:
    """The cohort of the run with the outcome that the model predicts, from a clinical table or the run's own table.

    Outcomes of another target than the model's are left out, with a note.
    """
    cohort = with_clinical_patients(request, for_run(request, clinical).known_cohort(), clinical)
    training = read_training(folder)
    if clinical is not None:
        return model_outcomes(request, cohort, clinical, ensemble.spec, training)
    metrics = training.metrics if training else {}
    trained = str(metrics.get("endpoint", ""))
    if trained and cohort.endpoint and trained != cohort.endpoint:
        request.console.note(
            f"predictions are not compared with the times of this run: they are {cohort.endpoint.upper()}, "
            f"the model predicts {trained.upper()}"
        )
        return replace(cohort, records=tuple(replace(record, time=None, event=None) for record in cohort.records))
    trained = str(metrics.get("label_column", ""))
    clinical_here = "clinical" in metrics and _is_of(folder, request.run_dir.root)
    has = cohort.target or ("label" if clinical_here else "")
    if not trained or not has or normalise(trained) == normalise(has) or not cohort.label_counts():
        return cohort
    hint = "; name the table with that column: --clinical FILE" if clinical_here else ""
    request.console.note(
        f"predictions are not compared with the labels of this run: they are from the column {has}, "
        f"the model predicts {trained}{hint}"
    )
    return replace(cohort, records=tuple(replace(record, label=None) for record in cohort.records))


def _is_of(folder: Path, run: Path) -> bool:
    """Whether a trained model belongs to a run."""
    return folder.resolve().is_relative_to(run.resolve())


def _note_left_out(request: Request, slides: SlideBags) -> None:
    if slides.left_out:
        request.console.note(f"not predicted{left_out_words(slides)}")


def _note_trained_on(request: Request, seen: pd.Series, unit: str) -> None:
    if seen.any():
        request.console.note(
            f"{seen.sum()} of {counted(len(seen), unit)} belong to patients the model was trained on: "
            "judge it by train-mil's cross-validated metrics, not by these"
        )


def _print_metrics(request: Request, metrics: Mapping[str, Any], unit: str) -> None:
    """Print the metrics of the predictions as `train-mil` does, per slide and per patient, and their warnings."""
    shown_here = [(unit, metrics)]
    if metrics.get("by_patient"):
        shown_here.append(("patient (mean of slides)", metrics["by_patient"]))
    shown_here = [(name, own) for name, own in shown_here if own.get("pooled")]
    if shown_here:
        names = list(shown_here[0][1]["pooled"])[:MOST_METRICS]
        rows = [[name, *(cell(own, metric) for metric in names)] for name, own in shown_here]
        chance = shown_here[0][1].get("chance") or {}
        rows.append(["(chance)", *(number(shown_here[0][1], chance.get(metric)) for metric in names)])
        title = "external test" if metrics.get("external") else "not an external test"
        request.console.table((title, *(metric_words(name) for name in names)), rows)
    for name, own in shown_here:
        for fact, text in facts(own):
            request.console.fact(fact, f"{name}: {text}" if len(shown_here) > 1 else text)
    warnings = [*metrics["warnings"], *((metrics.get("by_patient") or {}).get("warnings") or ())]
    for text in list(dict.fromkeys(warnings))[:MOST_WARNINGS]:
        request.console.note(text)
    for _, own in shown_here[:1]:
        interval = own["interval"]
        request.console.say(
            f"[{100 * interval['level']:.0f} % intervals] by {interval['resamples']} bootstrap resamples of "
            f"{counted(own['n_patients'], resampled_unit(own))}"
        )


def _print_files(request: Request, found: Predicted, unit: str) -> None:
    others = len(found.whole) - len(found.table)
    kept = f", with {counted(others, unit)} of earlier calls" if others else ""
    request.console.say(f"{counted(len(found.table), unit)} in {shown(found.path)}{kept}")
    if found.former is not None:
        request.console.note(f"predictions of the model before it was retrained are kept in {shown(found.former)}")
    made = [
        name for name, one in (("patients.csv", found.patients), ("metrics.json", found.metrics)) if one is not None
    ]
    if made:
        request.console.say(f"beside it {' and '.join(made)} · {request.next('report')}")


def _trained_folder(request: Request) -> Path:
    named = request.get(PredictOptions).trained
    if named:
        return Path(named)
    found, asked = trainings(request.run_dir), request.get(ClinicalOptions).target
    if len(found) > 1 and len(asked) == 1:
        wanted = [normalise(text) for text in (asked[0], asked[0].partition(":")[2]) if text]
        found = [one for one in found if normalise(target_name(one.metrics)) in wanted] or found
    if len(found) == 1:
        return found[0].folder
    if not found:
        raise UsageError("no trained model in this run", todo="Name one with --trained FOLDER, or run train-mil first")
    folders = "\n".join(f"  --trained {shown(training.folder)}" for training in found)
    raise UsageError(f"this run has {len(found)} trained models; choose one:\n{folders}")


def _prepare(request: Request, ensemble: Ensemble, folder: Path) -> int:
    """Tile and embed the given slides with the settings the model was trained on."""
    specs = ensemble.provenance["specs"]
    if "embed-slides" in specs:
        patches = specs["embed-slides"]["features"]
        raise UsageError(
            f"the model takes slide embeddings ({ensemble.encoder['name']}), which predict does not make",
            todo=f"Make them first (tile, embed --model {patches}, then embed-slides), then predict without naming "
            "slides",
        )
    if "tile" not in specs:
        raise UsageError(
            f"the model was trained on patches of {specs.get('import', {}).get('tool')}, which cannot be made here",
            todo="Compute features of these slides with that tool, then: wsi-pipeline predict --features-from FOLDER",
        )
    options = request.get(PredictOptions)
    # Checked before any slide is tiled, as is the adapter: without them the model cannot predict.
    networks = recorded_networks(
        specs, {"tissue": options.tissue_weights, "artefacts": options.artefact_weights}, options.device
    )
    specs = {**specs, "embed": with_recorded_target(request.run_dir, specs)}
    settings = [
        from_mapping(kind, specs[name], f"settings of the trained model ({name})")
        for kind, name in ((SegmentSpec, "segment"), (TileSpec, "tile"), (EmbedSpec, "embed"))
    ]
    recorded = str(ensemble.provenance.get("adapter", ""))
    adapter = adapter_of_model(ensemble.encoder, recorded, folder, request.run_dir, options.adapter)
    execution = EmbedExecution(adapter=adapter, weights=options.weights, device=options.device)
    both = request.with_options(
        request.get(CohortOptions),
        request.get(TableOptions),
        request.get(QuPathOptions),
        request.get(TileExecution),
        execution,
        networks,
        *settings,
    )
    tiled = tile(both)
    embedded = embed(replace(both, sources=()))
    return max(tiled, embedded)
