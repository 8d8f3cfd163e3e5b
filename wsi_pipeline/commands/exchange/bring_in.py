"""Import files of another tool into a run: for `import`, and for --features-from of `train-mil` and `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.cohort.run_dir import POOLED_MARK
from wsi_pipeline.commands.exchange.from_address import files_here
from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.request import Request, shown
from wsi_pipeline.commands.tile import print_redone
from wsi_pipeline.config.execution import CohortOptions, TableOptions
from wsi_pipeline.exchange.readers.find_files import find_files
from wsi_pipeline.files.addresses import is_address
from wsi_pipeline.stages.engine.runner import CohortResult, run_cohort
from wsi_pipeline.stages.inputs.import_cohort import Given, ImportCohort, import_cohort, require_any
from wsi_pipeline.stages.inputs.import_plan import ImportPlan, plan_features, plan_patches
from wsi_pipeline.stages.inputs.imported_features import ImportFeatures
from wsi_pipeline.stages.inputs.imported_patches import ImportPatches
from wsi_pipeline.wording import counted, listed

_SHOWN = 5


@dataclass(frozen=True)
class BroughtIn:
    """What was imported: the plan by slide_id, and the result for each slide."""

    plan: ImportPlan
    result: CohortResult

    @property
    def done(self) -> int:
        """Slides that are in the run now."""
        return sum(item.action in ("made", "fresh") for item in self.result.last.values())


def given_by(
    request: Request, *sources: str, labels: str | None = None, slides: str | None = None, encoder: str | None = None
) -> Given:
    """The files and tables that the user named, with the table options; paths are shown as a user would type them."""
    where = listed([_shown(source) for source in sources], 2)
    named = labels or slides
    options, table = request.get(CohortOptions), request.get(TableOptions)
    sources = files_here(sources, named, options, request.console)
    return Given(sources, labels, slides, encoder, where, shown(Path(named)) if named else "", options, table)


def _shown(source: str) -> str:
    return source.split("?")[0] if is_address(source) else shown(Path(source))


def bring_in_features(request: Request, given: Given) -> BroughtIn:
    """Import features into embed/<encoder>/ of the run; the cohort comes from the table, the run, or the files."""
    plan = plan_features(find_files(given.sources), given.where, given.encoder)
    _print_files(request, plan, given)
    found = _for_cohort(request, plan, given)
    return _run(request, ImportFeatures(request.run_dir, found.plan, given.cohort.default_mpp), found)


def bring_in_patches(request: Request, given: Given) -> BroughtIn:
    """Import coordinates into tile/ of the run."""
    plan = plan_patches(find_files(given.sources), given.where)
    _print_files(request, plan, given)
    found = _for_cohort(request, plan, given)
    return _run(request, ImportPatches(request.run_dir, found.plan, given.cohort.default_mpp), found)


def _run(request: Request, stage: ImportFeatures | ImportPatches, found: ImportCohort) -> BroughtIn:
    ready = found.ready(request.select(found.cohort))
    with request.console.progress("import", len(ready), "slides") as step:
        result = run_cohort([stage], request.run_dir, ready, workers=0, on_result=lambda results: step(1))
    done = [item for item in result.last.values() if item.action in ("made", "fresh")]
    request.console.table(
        ("slide", "note"), [(item.slide_id, f"FAILED {item.status.reason}") for item in result.failed][:MOST_ROWS]
    )
    _print_notes(request, {item.slide_id: item.status.note for item in done if item.status.note})
    print_redone(request, result)
    require_any(result)
    return BroughtIn(found.plan, result)


def _for_cohort(request: Request, plan: ImportPlan, given: Given) -> ImportCohort:
    """Record the slides to import in the run and return them; print what matched."""
    found = import_cohort(request.run_dir, plan, given)
    for note in found.notes:
        request.console.note(note)
    request.record(found.cohort)
    request.console.fact("matched", found.matched)
    return found


def _print_files(request: Request, plan: ImportPlan, given: Given) -> None:
    how = {"folder": " (named by the folder)", "user": " (as you say)"}.get(plan.stated_by, "")
    each = "slide" if POOLED_MARK in plan.encoder else "patch"
    encoder = f": encoder {plan.encoder}{how}, {plan.dim} features per {each}" if plan.encoder else ""
    total, bad = plan.counts
    request.console.fact("files", f"{counted(total, 'slide')} from {plan.tools} in {given.where}{bad}{encoder}")
    for note in plan.notes:
        request.console.note(note)


def _print_notes(request: Request, notes: Mapping[str, str]) -> None:
    """Print what is odd about slides, each sentence once."""
    by_note: dict[str, list[str]] = {}
    for slide, note in notes.items():
        by_note.setdefault(note, []).append(slide)
    for note, slides in list(by_note.items())[:_SHOWN]:
        request.console.note(f"{listed(slides, 3)}: {note}")
    if len(by_note) > _SHOWN:
        request.console.note(f"and {counted(len(by_note) - _SHOWN, 'more note')}, in status/")
