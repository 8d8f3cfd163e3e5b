"""One call of a command: the run, the options as specs, the slides, the console."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord, read_cohort, read_run, to_csv
from wsi_pipeline.cohort.run_dir import DEFAULT_RUN, RunDir
from wsi_pipeline.commands.shell.console import Console
from wsi_pipeline.config.execution import CohortOptions, TableOptions
from wsi_pipeline.errors import ManifestError, UsageError
from wsi_pipeline.system.atomic import write_text_if_changed
from wsi_pipeline.wording import counted, listed

S = TypeVar("S")
logger = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_SOME_FAILED = 3
MOST_NOTES = 20
MOST_LABELS = 20


@dataclass(frozen=True)
class Request:
    """One call of a command.

    options   one object per option dataclass of the command
    only      comma-separated slide ids to restrict the work to; empty: all
    chunk     (i, n): every n-th slide of the cohort from the i-th on, i from 1; None: all
    command   as typed, for the log and the report
    log_json  whether a JSON log is written too
    sections  for embed, one set of options per encoder; empty: `options` are those of the only encoder
    """

    run_dir: RunDir
    options: tuple[Any, ...]
    console: Console
    sources: tuple[str, ...] = ()
    only: str = ""
    chunk: tuple[int, int] | None = None
    command: str = ""
    log_json: bool = False
    sections: tuple[tuple[Any, ...], ...] = ()

    def get(self, kind: type[S]) -> S:
        """The options of one kind; their defaults if the command has none of that kind."""
        found = next((item for item in self.options if isinstance(item, kind)), None)
        return kind() if found is None else found

    def with_options(self, *options: Any) -> Request:
        """The same request with other options."""
        return replace(self, options=options, sections=())

    def each(self) -> tuple[Request, ...]:
        """One request for each section."""
        return tuple(self.with_options(*options) for options in self.sections) or (self,)

    def next(self, *steps: str) -> str:
        """`next: wsi-pipeline STEP, then ...`, with --run unless the run is in the default folder."""
        root = self.run_dir.root
        where = "" if root == Path(DEFAULT_RUN) else f" --run {shlex.quote(shown(root))}"
        return "next: " + ", then ".join(f"wsi-pipeline {step}{where}" for step in steps)

    def read_sources(self) -> Cohort:
        """Read the cohort of the given sources with the options of this call. Raises ManifestError with every fault."""
        given = self.get(CohortOptions)
        return read_cohort(
            self.sources,
            mixed_labels=given.mixed_labels,
            label_column=given.label_column,
            options=self.get(TableOptions),
        )

    def open_cohort(self) -> Cohort:
        """The cohort of the given sources, recorded in the run folder; without sources, the run's.

        Raises ManifestError with every fault. Prints a summary and notes.
        """
        if not self.sources:
            return self.known_cohort()
        cohort = self.read_sources()
        self.record(cohort)
        return cohort

    def record(self, cohort: Cohort) -> None:
        """Make this the cohort of the run. Prints a summary and notes."""
        self._print_cohort(cohort)
        self.keep(cohort)

    def keep(self, cohort: Cohort) -> None:
        """Make this the cohort of the run, without a word."""
        write_text_if_changed(self.run_dir.cohort_csv, to_csv(cohort))

    def known_cohort(self) -> Cohort:
        """The cohort this run was started with, updated by the table options of this call, which the run then keeps."""
        run = RunDir.existing(self.run_dir.root)
        options = self.get(TableOptions)
        if options == TableOptions() or self.sources:
            return read_cohort([run.cohort_csv], mixed_labels=True)
        cohort = read_run(run.cohort_csv, options)
        self.keep(cohort)
        return cohort

    def select(self, cohort: Cohort) -> tuple[SlideRecord, ...]:
        """The slides to work on: all, those of --only, or one chunk."""
        records = cohort.only(self._named(cohort)) if self.only else cohort.records
        if self.chunk is None:
            return records
        index, count = self.chunk
        return records[index - 1 :: count]

    def _named(self, cohort: Cohort) -> tuple[str, ...]:
        """The ids in --only: comma-separated, unless the whole text is an id (ids may contain commas)."""
        known = {record.slide_id for record in cohort.records}
        return (self.only,) if self.only in known else tuple(name for name in self.only.split(",") if name)

    def _print_cohort(self, cohort: Cohort) -> None:
        counts, (followed, events) = cohort.label_counts(), cohort.event_counts()
        labels = ", ".join(f"{label} {count}" for label, count in counts.items())
        if len(counts) > MOST_LABELS:
            labels = f"{len(counts)} different labels"
        parts = [
            counted(len(cohort), "slide"),
            patients_in_words(cohort),
            f"labels: {labels}" if labels else "no labels",
        ]
        if followed:
            parts.append(f"time and event of {counted(followed, 'patient')}, {counted(events, 'event')}")
        self.console.fact("cohort", f"{', '.join(parts)}  -> {self.run_dir.root}/")
        for note in cohort.notes[:MOST_NOTES]:
            self.console.note(str(note))
        if len(cohort.notes) > MOST_NOTES:
            self.console.note(f"and {len(cohort.notes) - MOST_NOTES} more, all in {self.run_dir.log}")
        for note in cohort.notes:
            logger.warning("manifest %s: %s", cohort.source, note)
        self._note_dropped(cohort)

    def _note_dropped(self, cohort: Cohort) -> None:
        if not self.run_dir.cohort_csv.is_file():
            return
        try:
            before = self.known_cohort()
        except ManifestError as error:  # damaged, or from an older version that accepted more: it is rewritten
            logger.warning("%s", error)
            return
        gone = {record.slide_id for record in before.records} - {item.slide_id for item in cohort.records}
        if gone:
            verb = "is" if len(gone) == 1 else "are"
            self.console.note(
                f"{counted(len(gone), 'slide')} of this run {verb} no longer in the cohort: {listed(sorted(gone))}; "
                "their files are kept"
            )


def parse_chunk(text: str | None) -> tuple[int, int] | None:
    """`3/40` -> (3, 40). Raises UsageError for anything else."""
    if text is None:
        return None
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        raise UsageError(f"chunk must look like 3/40, got {text!r}") from None
    if not 1 <= index <= count:
        raise UsageError(f"chunk must be between 1/{count} and {count}/{count}, got {text}")
    return index, count


def patients_in_words(cohort: Cohort) -> str:
    """`12 patients`, or `patients not known`."""
    if cohort.patients_stated == "not known":
        return "patients not known"
    return counted(cohort.patients, "patient")


def shown(path: Path) -> str:
    """A path as a user would type it in the current folder."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
