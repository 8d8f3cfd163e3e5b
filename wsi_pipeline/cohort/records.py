"""Records of a cohort's slides, and notes on its table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_pipeline.cohort.table_words import in_order
from wsi_pipeline.errors import UsageError

OUTCOME = ("time", "event")


@dataclass(frozen=True)
class SlideRecord:
    """One row of the manifest. `path` is absolute; `label`, `site`, ... are None if not given.

    `image`, `channel` and `plane` select a part of the file; the end of `path` states the same (`choices`).

    `tissue_mpp` is the scale of the mask in `tissue`; None if the mask spans the slide.

    `time` is in the table's own unit; `event` is 1 if the event was seen at that time, 0 if the patient was
    last seen without it.
    """

    slide_id: str
    path: Path
    patient_id: str
    label: str | None = None
    mpp: float | None = None
    site: str | None = None
    stain: str | None = None
    split: str | None = None
    annotation: Path | None = None
    time: float | None = None
    event: int | None = None
    tissue: Path | None = None
    image: str | None = None
    channel: str | None = None
    plane: str | None = None
    tissue_mpp: float | None = None


@dataclass(frozen=True)
class Fault:
    """Something wrong in a manifest. `row` counts as a spreadsheet does (the header is row 1)."""

    row: int | None
    message: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"row {self.row}: {self.message}" if self.row else self.message


@dataclass(frozen=True)
class Cohort:
    """All slides of a run, in the order of the manifest, with non-fatal findings.

    without_patient   ids of slides whose patient is not stated; each counts as its own patient
    each_slide        the user states that no patient has two slides
    written           slide_id -> label as in the table, if that means no value or is another spelling of `label`
    target            column the labels were read from, if the user chose one other than `label`
    endpoint          which survival `time` and `event` are (`os`, `pfs`), if their columns say so
    kept              unused columns that may hold patients: header -> cell of each record
    """

    records: tuple[SlideRecord, ...]
    source: str
    notes: tuple[Fault, ...] = field(default=())
    without_patient: frozenset[str] = frozenset()
    each_slide: bool = False
    written: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    target: str = ""
    endpoint: str = ""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def patients(self) -> int:
        """Number of different patients."""
        return len({record.patient_id for record in self.records})

    @property
    def patients_stated(self) -> str:
        """Whether patients are known: `stated`, stated for `some`, `each slide` is a patient, or `not known`."""
        if self.each_slide:
            return "each slide"
        if not self.without_patient:
            return "stated"
        return "not known" if len(self.without_patient) == len(self.records) else "some"

    def target_of(self, task: str) -> str:
        """Name of the target if it is not in the columns `label`, or `time` and `event`; else empty."""
        return self.endpoint if task == "survival" else self.target

    def label_counts(self) -> dict[str, int]:
        """Slides per label, most frequent first; slides without a label are not counted."""
        counts: dict[str, int] = defaultdict(int)
        for record in self.records:
            if record.label is not None:
                counts[record.label] += 1
        return dict(sorted(((name, counts[name]) for name in in_order(counts)), key=lambda item: -item[1]))

    def event_counts(self) -> tuple[int, int]:
        """Number of patients whose time and event are known, and of those with the event."""
        known = {
            item.patient_id: item.event for item in self.records if item.time is not None and item.event is not None
        }
        return len(known), sum(known.values())

    def only(self, slide_ids: Sequence[str]) -> tuple[SlideRecord, ...]:
        """The records with the given ids. Raises UsageError that lists ids not in the cohort."""
        known = {record.slide_id for record in self.records}
        missing = [slide_id for slide_id in slide_ids if slide_id not in known]
        if missing:
            raise UsageError(f"not in the cohort: {', '.join(missing)}", todo=f"The cohort comes from {self.source}")
        return tuple(record for record in self.records if record.slide_id in set(slide_ids))
