"""Files of another tool brought into a run: by `import`, and by --features-from of `train-mil` and `predict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord, id_problem, read_cohort
from wsi_pipeline.cohort.records import Fault
from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.request import Request, shown
from wsi_pipeline.commands.tile import print_redone
from wsi_pipeline.config.execution import CohortOptions, TableOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.exchange.readers.find_files import find_files
from wsi_pipeline.exchange.readers.foreign_file import ForeignFile
from wsi_pipeline.exchange.readers.slide_names import match_names
from wsi_pipeline.stages.engine.runner import CohortResult, run_cohort
from wsi_pipeline.stages.inputs.import_plan import ImportPlan, plan_features, plan_patches
from wsi_pipeline.stages.inputs.imported_features import ImportFeatures
from wsi_pipeline.stages.inputs.imported_patches import ImportPatches
from wsi_pipeline.wording import agreed, counted, listed

_SHOWN = 5


@dataclass(frozen=True)
class Given:
    """What a user names: files or folders, a table of labels, the slides, the encoder."""

    sources: tuple[str, ...]
    labels: str | None = None
    slides: str | None = None
    encoder: str | None = None

    @property
    def where(self) -> str:
        """The files in a message."""
        return listed([shown(Path(source)) for source in self.sources], 2)


@dataclass(frozen=True)
class BroughtIn:
    """What was imported: the plan by slide_id, and how each slide ended."""

    plan: ImportPlan
    result: CohortResult

    @property
    def done(self) -> int:
        """Slides that are there now."""
        return sum(item.action in ("made", "fresh") for item in self.result.last.values())


def bring_in_features(request: Request, given: Given) -> BroughtIn:
    """Import features into embed/<encoder>/ of the run; the cohort comes from the table, the run, or the files."""
    plan = plan_features(find_files(given.sources), given.where, given.encoder)
    _print_files(request, plan, given)
    plan, records = _for_cohort(request, plan, given)
    stage = ImportFeatures(request.run_dir, plan, request.get(CohortOptions).default_mpp)
    return _run(request, stage, plan, records)


def bring_in_patches(request: Request, given: Given) -> BroughtIn:
    """Import coordinates into tile/ of the run."""
    plan = plan_patches(find_files(given.sources), given.where)
    _print_files(request, plan, given)
    plan, records = _for_cohort(request, plan, given)
    stage = ImportPatches(request.run_dir, plan, request.get(CohortOptions).default_mpp)
    return _run(request, stage, plan, records)


def _run(
    request: Request, stage: ImportFeatures | ImportPatches, plan: ImportPlan, records: Sequence[SlideRecord]
) -> BroughtIn:
    ready = [record for record in records if record.slide_id in plan.files or record.slide_id in plan.faults]
    with request.console.progress("import", len(ready), "slides") as step:
        result = run_cohort([stage], request.run_dir, ready, workers=0, on_result=lambda results: step(1))
    done = [item for item in result.last.values() if item.action in ("made", "fresh")]
    request.console.table(
        ("slide", "note"), [(item.slide_id, f"FAILED {item.status.reason}") for item in result.failed][:MOST_ROWS]
    )
    _print_notes(request, {item.slide_id: item.status.note for item in done if item.status.note})
    print_redone(request, result)
    if not done:
        first = result.failed[0] if result.failed else None
        raise UsageError(
            "no slide was imported" + (f": {first.slide_id}: {first.status.reason}" if first else ""),
            todo=first.status.todo if first and first.status.todo else None,
        )
    return BroughtIn(plan, result)


def _print_files(request: Request, plan: ImportPlan, given: Given) -> None:
    how = {"folder": " (named by the folder)", "user": " (as you say)"}.get(plan.stated_by, "")
    encoder = f": encoder {plan.encoder}{how}, {plan.dim} features a patch" if plan.encoder else ""
    total, bad = plan.counts
    request.console.fact("files", f"{counted(total, 'slide')} of {plan.tools} in {given.where}{bad}{encoder}")
    for note in plan.notes:
        request.console.note(note)


def _print_notes(request: Request, notes: Mapping[str, str]) -> None:
    """What is odd about slides, each sentence once."""
    by_note: dict[str, list[str]] = {}
    for slide, note in notes.items():
        by_note.setdefault(note, []).append(slide)
    for note, slides in list(by_note.items())[:_SHOWN]:
        request.console.note(f"{listed(slides, 3)}: {note}")
    if len(by_note) > _SHOWN:
        request.console.note(f"and {counted(len(by_note) - _SHOWN, 'more note')}, in status/")


def _for_cohort(request: Request, plan: ImportPlan, given: Given) -> tuple[ImportPlan, tuple[SlideRecord, ...]]:
    """The plan by the ids of the cohort, which is recorded in the run; and the slides to import."""
    cohort, table = _cohort(request, plan, given)
    ids = [record.slide_id for record in cohort.records]
    plan = plan.for_slides(ids, table, given.where)
    if given.slides:
        cohort = _with_slides(request, cohort, given.slides)
    cohort = _with_files(cohort, plan)
    request.record(cohort)
    _print_matches(request, plan, len(ids), table)
    return plan, request.select(cohort)


def _cohort(request: Request, plan: ImportPlan, given: Given) -> tuple[Cohort, str]:
    """The slides, and the name of what lists them."""
    options = request.get(CohortOptions)
    named = given.labels or (given.slides if not request.run_dir.cohort_csv.is_file() else None)
    if named:
        cohort = read_cohort(
            [named],
            mixed_labels=options.mixed_labels,
            label_column=options.label_column,
            options=request.get(TableOptions),
        )
        return cohort, shown(Path(named))
    if request.run_dir.cohort_csv.is_file():
        return request.known_cohort(), shown(request.run_dir.cohort_csv)
    return _of_files({**dict.fromkeys(plan.faults), **plan.files}, given), given.where


def _of_files(files: Mapping[str, ForeignFile | None], given: Given) -> Cohort:
    """A cohort without labels: each file a slide. Names that cannot be ids are noted."""
    names = [name for name in files if id_problem(name) is None]
    odd = [Fault(None, f"{name!r} {id_problem(name)}: not imported", fatal=False) for name in files if id_problem(name)]
    folder = Path(given.sources[0]).absolute()
    records = tuple(SlideRecord(name, folder / name, name) for name in names)
    return Cohort(records, given.where, tuple(odd), without_patient=frozenset(names))


def _with_slides(request: Request, cohort: Cohort, source: str) -> Cohort:
    """The cohort with the paths and resolutions of slides named apart from the labels."""
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
    missing = matches.without
    if missing:
        request.console.note(f"{counted(len(missing), 'slide')} not in {source}: {listed(missing, _SHOWN)}")
    return _noted(cohort, records)


def _with_files(cohort: Cohort, plan: ImportPlan) -> Cohort:
    """The cohort where a slide that is not there has the path of its features' file, and no note that it is missing.

    Nor is there such a note where the file of features is missing or at fault: no slide is needed, and the line of
    what matched names it.
    """
    files = plan.files
    return _noted(
        cohort,
        [
            replace(record, path=files[record.slide_id].path, image=None, channel=None, plane=None)
            if record.slide_id in files and not record.path.exists()
            else record
            for record in cohort.records
        ],
        {str(record.path) for record in cohort.records if record.slide_id not in files},
    )


def _noted(cohort: Cohort, records: Sequence[SlideRecord], more: Set[str] = frozenset()) -> Cohort:
    """The cohort with other records, without notes on files that these no longer name, and on the paths in `more`."""
    gone = {str(record.path) for record in cohort.records} - {str(record.path) for record in records} | more
    notes = tuple(note for note in cohort.notes if not any(note.message.endswith(f": {path}") for path in gone))
    return replace(cohort, records=tuple(records), notes=notes)


def _print_matches(request: Request, plan: ImportPlan, total: int, table: str) -> None:
    matches = plan.matches
    there, bad = plan.counts
    parts = [f"{there} of {counted(total, 'slide')} in {table} {agreed(there, 'has')} a file{bad}"]
    if matches.without:
        parts.append(f"no file for {listed(matches.without, _SHOWN)}")
    if matches.left:
        parts.append(f"no row for {listed(matches.left, _SHOWN)}")
    request.console.fact("matched", "; ".join(parts))
