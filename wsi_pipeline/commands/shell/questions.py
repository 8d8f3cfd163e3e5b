"""The outcomes that `train-mil` learns and `predict` is evaluated on: from the run, or from a clinical table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from wsi_pipeline.cohort.clinical.clinical_table import ClinicalTable, read_clinical
from wsi_pipeline.cohort.clinical.join import Joined, has_column, join
from wsi_pipeline.cohort.clinical.outcomes import Outcomes, with_outcome
from wsi_pipeline.cohort.clinical.slide_patients import with_patients
from wsi_pipeline.cohort.clinical.targets import SURVIVAL, Target, parse_target
from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, slug
from wsi_pipeline.cohort.table_words import label_key
from wsi_pipeline.cohort.tables.cell_rows import read_rows
from wsi_pipeline.cohort.tables.columns import find_column, normalise
from wsi_pipeline.cohort.tables.patient_doubts import doubt_words
from wsi_pipeline.cohort.tables.table_rows import read_table
from wsi_pipeline.commands.shell.request import Request
from wsi_pipeline.config.execution import ClinicalOptions, TableOptions, TrainingOptions
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import UsageError
from wsi_pipeline.stages.inputs.outcome_source import OutcomeSource
from wsi_pipeline.stages.results.former import check_name
from wsi_pipeline.stages.results.trainings import Training, training_name
from wsi_pipeline.wording import listed

TASKS: tuple[str, ...] = tuple(MilSpec.__dataclass_fields__["task"].metadata["choices"])


@dataclass(frozen=True, eq=False)
class Question:
    """One target with everything its training needs.

    shown     name of the target in messages
    records   the slides with its outcome
    name      folder of its training
    source    where the outcome comes from
    """

    shown: str
    spec: MilSpec
    records: tuple[SlideRecord, ...]
    name: str
    source: OutcomeSource


def clinical_table(request: Request) -> ClinicalTable | None:
    """Read the clinical table that the options name; print notes on how it was read."""
    named = request.get(ClinicalOptions).clinical
    if named is None:
        return None
    table = read_clinical(named)
    for note in table.notes:
        request.console.note(f"{Path(table.name).name}: {note}")
    return table


def for_run(request: Request, table: ClinicalTable | None) -> Request:
    """The request for the table of slides, without the label options, which apply to the clinical table.

    --patient-column names a column of either table, or of both.
    """
    options = request.get(TableOptions)
    if table is None or request.sources:
        return request
    own = replace(options, fold_labels=False, keep_label=None)
    asked = options.patient_column
    if asked is not None and has_column(table, asked):
        header = (read_rows(RunDir.existing(request.run_dir.root).cohort_csv)[0] or [[]])[0]
        if find_column(header, asked) is None or normalise(asked) == "patient_id":
            own = replace(own, patient_column=None)
    others = [item for item in request.options if not isinstance(item, TableOptions)]
    return dataclasses.replace(request, options=(own, *others))


def for_import(request: Request, table: ClinicalTable | None, labels: str | None) -> Request:
    """The request for the slides of imported features: without a column of patients that only the clinical table has.

    labels   the table of these slides; None: there is none but the run's own
    """
    options = request.get(TableOptions)
    asked = options.patient_column
    if table is None or asked is None or not has_column(table, asked):
        return request
    source = labels or (str(request.run_dir.cohort_csv) if request.run_dir.cohort_csv.is_file() else None)
    if source is not None and find_column(read_table(source).header, asked) is not None:
        return request
    others = [item for item in request.options if not isinstance(item, TableOptions)]
    return dataclasses.replace(request, options=(replace(options, patient_column=None), *others))


def with_clinical_patients(request: Request, cohort: Cohort, table: ClinicalTable | None) -> Cohort:
    """The cohort with patients from a clinical table of slides, which the run then keeps.

    Only slides whose patient the run does not know get one. If the table has no column of patients, its columns are
    candidates for them (`check_patients`).
    """
    if table is None or not cohort.without_patient:
        return cohort
    asked = request.get(TableOptions).patient_column
    column = asked if asked is not None and has_column(table, asked) else None
    found, what = with_patients(cohort, join(table, cohort.records, column), column)
    if what:
        request.console.fact("patient", f"{Path(table.name).name}: {what}")
        request.keep(found)
    return found


def doubts_of(cohort: Cohort, question: Question) -> list[tuple[str, str]]:
    """Reasons why the patients of a target's slides are uncertain, see `doubt_words`."""
    columns = question.source.clinical.get("columns", {})
    outcome = {name for text in columns.values() for name in text.split(" + ")}
    ids = {record.slide_id for record in question.records}
    places = [k for k, record in enumerate(cohort.records) if record.slide_id in ids]
    kept = {name: tuple(cells[k] for k in places) for name, cells in cohort.kept.items() if name not in outcome}
    without = cohort.without_patient & ids
    return doubt_words(replace(cohort, records=question.records, kept=kept, without_patient=without))


def joined_table(request: Request, table: ClinicalTable, records: Sequence[SlideRecord]) -> Joined:
    """Join the table to the slides; print what matched."""
    asked = request.get(TableOptions).patient_column
    found = join(table, records, asked if asked is not None and has_column(table, asked) else None)
    request.console.fact("joined", f"{Path(table.name).name}: {found.summary}")
    for note in found.notes:
        request.console.note(note)
    return found


def questions(
    request: Request, cohort: Cohort, records: Sequence[SlideRecord], table: ClinicalTable | None
) -> list[Question]:
    """The targets to train, in the order given.

    Raises UsageError if a target is in no table, or if two targets would share a folder.
    """
    spec, asked = request.get(MilSpec), request.get(ClinicalOptions).target
    if table is None:
        return _of_the_run(request, cohort, records)
    joined = joined_table(request, table, records)
    is_column = partial(has_column, table)
    targets = [parse_target(text, spec.task, TASKS, is_column) for text in asked] or [Target("", spec.task, "")]
    own = [
        target.task != SURVIVAL and not is_column(target.column) and _is_own_label(cohort, target) for target in targets
    ]
    found = [
        Outcomes(target, tuple(records), {}, ())
        if mine
        else with_outcome(joined, records, target, request.get(TableOptions))
        for target, mine in zip(targets, own, strict=True)
    ]
    _check_kept(request, found)
    made = []
    for one, mine in zip(found, own, strict=True):
        for note in one.notes:
            request.console.note(f"{one.target.shown}: {note}" if len(found) > 1 else note)
        source = OutcomeSource(cohort.target, patients=cohort.patients_stated) if mine else _source(joined, one, cohort)
        made.append(_question(request, one, source, several=len(found) > 1))
    _check_folders(made)
    return _positives(request, made)


def model_outcomes(
    request: Request, cohort: Cohort, table: ClinicalTable, spec: MilSpec, training: Training | None
) -> Cohort:
    """The cohort with the outcome of a trained model's target from a clinical table.

    --target names its column if that has another name there. Raises UsageError if the column does not exist.
    """
    asked, metrics = request.get(ClinicalOptions).target, training.metrics if training else {}
    if len(asked) > 1:
        raise UsageError(f"a trained model has one target, got {len(asked)}", todo="Name one --target")
    is_column = partial(has_column, table)
    known = str(metrics.get("endpoint" if spec.task == SURVIVAL else "label_column", ""))
    target = parse_target(asked[0], spec.task, TASKS, is_column) if asked else Target(known, spec.task, known)
    if target.task != spec.task:
        raise UsageError(f"target {target.written} is {target.task}, the model predicts {spec.task}")
    joined = joined_table(request, table, cohort.records)
    found = with_outcome(joined, cohort.records, target, request.get(TableOptions))
    for note in found.notes:
        request.console.note(note)
    return replace(cohort, records=found.records)


def _of_the_run(request: Request, cohort: Cohort, records: Sequence[SlideRecord]) -> list[Question]:
    """The label or survival in the run's own table."""
    spec, asked, place = request.get(MilSpec), request.get(ClinicalOptions).target, request.get(TrainingOptions)
    targets = [parse_target(text, spec.task, TASKS, lambda name: False) for text in asked]
    for target in targets:
        if not _is_own_label(cohort, target):
            has = f"labels of the column {cohort.target}" if cohort.target else "the column label"
            raise UsageError(
                f"target {target.written}: this run keeps {has}, no other",
                todo="Name the table with this column, of patients or of slides: --clinical FILE",
            )
    made = []
    for target in targets or [Target("", spec.task, "")]:
        own = _as_task(spec, target.task)
        column = cohort.target_of(own.task)
        name = check_name(place.name) if place.name is not None else training_name(own, column)
        name = f"{name}.{slug(target.shown)}" if place.name is not None and len(targets) > 1 else name
        shown = f"{SURVIVAL} {cohort.endpoint.upper()}".strip() if target.task == SURVIVAL else cohort.target or "label"
        source = OutcomeSource(column, patients=cohort.patients_stated)
        made.append(Question(shown, own, tuple(records), name, source))
    _check_folders(made)
    return _positives(request, made)


def _is_own_label(cohort: Cohort, target: Target) -> bool:
    """Whether a target is the outcome in the run's own table."""
    if target.task == SURVIVAL:
        return target.column.lower() in ("", cohort.endpoint) and bool(cohort.event_counts()[0])
    return normalise(target.column) in ("label", normalise(cohort.target or "label"))


def _question(request: Request, found: Outcomes, source: OutcomeSource, *, several: bool) -> Question:
    target, place = found.target, request.get(TrainingOptions)
    spec = _as_task(request.get(MilSpec), target.task)
    if place.name is not None:
        name = check_name(place.name) + (f".{slug(target.shown.replace(' ', '.'))}" if several else "")
    else:
        name = training_name(spec, source.column)
    shown = target.shown or SURVIVAL
    return Question(shown, spec, found.records, name, source)


def _as_task(spec: MilSpec, task: str) -> MilSpec:
    """The settings for a target of another task; grades apply only to --task ordinal."""
    return spec if task == spec.task else replace(spec, task=task, grades=spec.grades if task == "ordinal" else None)


def _source(joined: Joined, found: Outcomes, cohort: Cohort) -> OutcomeSource:
    """Where the outcome of a target is in the clinical table."""
    column = found.target.column.lower() if found.target.task == SURVIVAL else found.target.column
    clinical = {"file": Path(joined.table.name).name, "joined": joined.summary, "columns": found.columns}
    return OutcomeSource(column, clinical, cohort.patients_stated)


def _check_kept(request: Request, found: Sequence[Outcomes]) -> None:
    """Raise UsageError if --keep-label names a label that no target has."""
    labels = {record.label.casefold() for one in found for record in one.records if record.label}
    missing = sorted(request.get(TableOptions).kept_labels - labels)
    if missing:
        raise UsageError(f"keep_label names {listed(map(repr, missing))}, which no slide has as its label")


def _check_folders(made: Sequence[Question]) -> None:
    first: dict[str, Question] = {}
    for question in made:
        other = first.setdefault(question.name, question)
        if other is not question:
            raise UsageError(
                f"targets {other.shown} and {question.shown} would both be trained in {question.name}",
                todo="Train them one by one, each with a --name",
            )


def _positives(request: Request, made: Sequence[Question]) -> list[Question]:
    """With several targets, --positive applies to those that have this class."""
    wanted = request.get(MilSpec).positive
    if wanted is None or len(made) < 2:
        return list(made)
    has = [
        q.spec.task == "classification" and any(r.label and label_key(r.label) == label_key(wanted) for r in q.records)
        for q in made
    ]
    if not any(has):
        raise UsageError(f"positive {wanted!r}: none of the targets has this class")
    return [q if yes else replace(q, spec=replace(q.spec, positive=None)) for q, yes in zip(made, has, strict=True)]
