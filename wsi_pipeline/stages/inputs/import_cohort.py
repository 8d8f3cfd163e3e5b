"""The slides that imported files belong to: from a table of labels, from the run, or from the files themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord, id_problem, read_cohort, read_run
from wsi_pipeline.cohort.records import Fault
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.execution import CohortOptions, TableOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.exchange.readers.foreign_file import ForeignFile
from wsi_pipeline.exchange.readers.slide_names import match_names
from wsi_pipeline.files.addresses import may_exist
from wsi_pipeline.stages.engine.runner import CohortResult
from wsi_pipeline.stages.inputs.import_plan import ImportPlan
from wsi_pipeline.wording import agreed, counted, listed

_SHOWN = 5


@dataclass(frozen=True)
class Given:
    """The user's input: files or folders, a table of labels, slides, encoder, and how to read the tables.

    where        words for the files in messages
    table_name   words for the table of labels, or the slides, in messages
    """

    sources: tuple[str, ...]
    labels: str | None = None
    slides: str | None = None
    encoder: str | None = None
    where: str = ""
    table_name: str = ""
    cohort: CohortOptions = field(default_factory=CohortOptions)
    table: TableOptions = field(default_factory=TableOptions)


@dataclass(frozen=True)
class ImportCohort:
    """The slides of an import.

    plan     files and faults by slide_id
    cohort   all slides, to be recorded in the run
    table    name of their source in messages
    notes    sentences for the user
    """

    plan: ImportPlan
    cohort: Cohort
    table: str
    notes: tuple[str, ...] = ()

    def ready(self, records: Sequence[SlideRecord]) -> list[SlideRecord]:
        """The `records` that have a file, usable or not."""
        return [one for one in records if one.slide_id in self.plan.files or one.slide_id in self.plan.faults]

    @property
    def matched(self) -> str:
        """A sentence about which files and slides match."""
        matches, (there, bad) = self.plan.matches, self.plan.counts
        parts = [f"{there} of {counted(len(self.cohort), 'slide')} in {self.table} {agreed(there, 'has')} a file{bad}"]
        if matches.without:
            parts.append(f"no file for {listed(matches.without, _SHOWN)}")
        if matches.left:
            parts.append(f"no row for {listed(matches.left, _SHOWN)}")
        return "; ".join(parts)


def import_cohort(run: RunDir, plan: ImportPlan, given: Given) -> ImportCohort:
    """Match files and slides. Slides come from the table of labels, else from the run, else one per file.

    Raises UsageError if no slide has a file, ManifestError for a table that cannot be used.
    """
    cohort, table = _cohort(run, plan, given)
    plan = plan.for_slides([record.slide_id for record in cohort.records], table, given.where)
    notes: list[str] = []
    if given.slides:
        cohort = _with_slides(cohort, given.slides, notes)
    return ImportCohort(plan, _with_files(cohort, plan), table, tuple(notes))


def require_any(result: CohortResult) -> None:
    """Raise UsageError, with the first reason and what to do, if no slide was imported."""
    if any(item.action in ("made", "fresh") for item in result.last.values()):
        return
    first = result.failed[0] if result.failed else None
    raise UsageError(
        "no slide was imported" + (f": {first.slide_id}: {first.status.reason}" if first else ""),
        todo=first.status.todo if first and first.status.todo else None,
    )


def _cohort(run: RunDir, plan: ImportPlan, given: Given) -> tuple[Cohort, str]:
    """The slides, and the name of their source."""
    known = run.cohort_csv.is_file()
    if named := given.labels or (None if known else given.slides):
        cohort = read_cohort(
            [named],
            mixed_labels=given.cohort.mixed_labels,
            label_column=given.cohort.label_column,
            options=given.table,
        )
        return cohort, given.table_name or named
    if known:
        return read_run(run.cohort_csv, given.table), str(run.cohort_csv)
    return _of_files({**dict.fromkeys(plan.faults), **plan.files}, given), given.where


def _of_files(files: Mapping[str, ForeignFile | None], given: Given) -> Cohort:
    """A cohort without labels, one slide per file. Names that cannot be slide ids are noted."""
    names = [name for name in files if id_problem(name) is None]
    odd = [Fault(None, f"{name!r} {id_problem(name)}: not imported", fatal=False) for name in files if id_problem(name)]
    folder = Path(given.sources[0]).absolute()
    records = tuple(SlideRecord(name, folder / name, name) for name in names)
    return Cohort(records, given.where, tuple(odd), without_patient=frozenset(names))


def _with_slides(cohort: Cohort, source: str, notes: list[str]) -> Cohort:
    """The cohort with paths and resolutions from a list of slides separate from the labels."""
    slides = read_cohort([source], mixed_labels=True)
    by_id = {record.slide_id: record for record in slides.records}
    matches = match_names([record.slide_id for record in cohort.records], by_id)
    if not matches.names:
        raise UsageError(
            f"none of the {counted(len(cohort), 'slide')} is in {source}: it has {listed(by_id, _SHOWN)}",
            todo="Ids match with or without suffixes",
        )
    records = []
    for record in cohort.records:
        found = by_id.get(matches.names.get(record.slide_id, ""))
        taken = ("path", "image", "channel", "plane")
        more = {key: getattr(found, key) for key in taken} if found else {}
        records.append(replace(record, **more, mpp=record.mpp or (found.mpp if found else None)))
    if missing := matches.without:
        notes.append(f"{counted(len(missing), 'slide')} not in {source}: {listed(missing, _SHOWN)}")
    return _noted(cohort, records)


def _with_files(cohort: Cohort, plan: ImportPlan) -> Cohort:
    """The cohort in which a missing slide has the path of its feature file, without a note that it is missing.

    The note is also dropped if the feature file is missing or unusable: the slide is not needed, and the sentence
    about matches names it.
    """
    files = plan.files
    return _noted(
        cohort,
        [
            replace(record, path=files[record.slide_id].path, image=None, channel=None, plane=None)
            if record.slide_id in files and not may_exist(record.path)
            else record
            for record in cohort.records
        ],
        {str(record.path) for record in cohort.records if record.slide_id not in files},
    )


def _noted(cohort: Cohort, records: Sequence[SlideRecord], more: Set[str] = frozenset()) -> Cohort:
    """The cohort with other records; notes on files they no longer name, and on paths in `more`, are dropped."""
    gone = {str(record.path) for record in cohort.records} - {str(record.path) for record in records} | more
    notes = tuple(note for note in cohort.notes if not any(note.message.endswith(f": {path}") for path in gone))
    return replace(cohort, records=tuple(records), notes=notes)
