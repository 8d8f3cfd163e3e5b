"""Turn feature stores into the input of slide-level models: bags, a table, and the slides left out with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import POOLED_MARK, RunDir, existing_store
from wsi_pipeline.cohort.slide_status import read_status
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.splits.groups import CONTENT, codes_of, joined
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.inputs.alike import check_alike
from wsi_pipeline.stages.inputs.outcome_source import OUTCOMES, OutcomeSource, check_patients
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import COORDS, FEATURE_FORMAT, IMPORTED, PATCH_FORMAT, POOLED, Header
from wsi_pipeline.store.tables.cohort_features import read_cohort_features
from wsi_pipeline.wording import EMPTY_TODO, agreed, counted, listed


@dataclass(frozen=True)
class BagPart:
    """Rows start to stop of a patient's bag, which belong to one slide."""

    slide_id: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class SlideBags:
    """Bags of features of one encoder: one per slide, or one per patient with all slides.

    table       slide_id, patient_id, label (None if unknown); time, event, split, site where any slide has one;
                content (a digest of the slide's file); row i is bag i. For a patient's bag slide_id is the
                patient's id: it is the name of the bag
    bags        the features
    encoder     identity of the encoder, the same for all
    specs       settings of segment, tile and embed, the same for all
    digests     slide_id -> digest of its feature store (for a patient: of the stores of all slides)
    left_out    slide_id -> why it was left out
    adapter     the encoder's adapter file, as `find_adapter.remembered` gives it; "" for an encoder without one
    tuned_on    slides (patients) whose labels, or whose patient's labels, the encoder was tuned on
    own_stain   slides that keep their own stain though the others were normalised
    parts       the slides of each bag if bags are patients, else empty
    doubts      why the patients may be wrong, and what to do about it; empty if they are certain
    source      where the outcomes come from
    """

    table: pd.DataFrame
    bags: Bags
    encoder: dict[str, Any]
    specs: dict[str, dict[str, Any]]
    digests: dict[str, str]
    left_out: dict[str, str]
    adapter: str = ""
    tuned_on: tuple[str, ...] = ()
    own_stain: tuple[str, ...] = ()
    parts: tuple[tuple[BagPart, ...], ...] = ()
    doubts: tuple[tuple[str, str], ...] = ()
    source: OutcomeSource = field(default_factory=OutcomeSource)

    def __repr__(self) -> str:
        labelled = int(self.table["label"].notna().sum())
        what = f"{counted(len(self.bags), 'bag')} with {counted(len(self.bags.features), 'patch')} x {self.bags.dim}"
        return f"<SlideBags: {what} by {self.encoder['name']}, {labelled} labelled>"

    def _repr_html_(self) -> str:
        """The table of bags, in a notebook."""
        html: str = self.table.assign(patches=self.bags.lengths).to_html(max_rows=40)
        return html

    def for_training(self, spec: MilSpec) -> SlideBags:
        """The bags with a known outcome for `spec.task`, per slide or per patient as `spec.bag` says.

        Raises MilError if the patients are in doubt, if no bag has an outcome, or if slides of a patient that would
        form one bag contradict each other.
        """
        check_patients(self.doubts)
        bags = self.by_patient() if spec.bag == "patient" else self
        found = bags.labelled(OUTCOMES[spec.task])
        if not len(found.table):
            raise self.source.no_outcome(spec.task)
        return found

    def labelled(self, columns: Sequence[str] = ("label",)) -> SlideBags:
        """Only the bags with a value in all of these columns; the others are left out with the reason."""
        known = np.ones(len(self.table), dtype=bool)
        unknown: dict[str, str] = {}
        for column in columns:
            missing = self.table[column].isna().to_numpy() if column in self.table else np.ones(len(known), dtype=bool)
            unknown |= dict.fromkeys(self.table["slide_id"][missing & known], f"no {column}")
            known &= ~missing
        rows = np.flatnonzero(known)
        table = self.table.iloc[rows].reset_index(drop=True)
        kept = {slide: self.digests[slide] for slide in table["slide_id"]}
        return replace(
            self,
            table=table,
            bags=_chosen(self.bags, rows),
            digests=kept,
            left_out={**self.left_out, **unknown},
            tuned_on=tuple(slide for slide in self.tuned_on if slide in kept),
            own_stain=tuple(slide for slide in self.own_stain if self.parts or slide in kept),
            parts=tuple(self.parts[row] for row in rows) if self.parts else (),
        )

    def by_patient(self, *, refuse: bool = True) -> SlideBags:
        """All slides of a patient as one bag, in the order of the table; patients in the order of their first slide.

        refuse   raise MilError if slides of a patient differ in label, time, event or split; if False, the
                 patient has no value in that column

        A value that only some slides of a patient have applies to the patient.
        """
        codes, names = pd.factorize(self.table["patient_id"])
        rows = {str(name): np.flatnonzero(codes == code) for code, name in enumerate(names)}
        order = np.concatenate(list(rows.values()))
        sorted_bags = _chosen(self.bags, order)
        ends = np.cumsum([0, *(len(slides) for slides in rows.values())])
        slides = self.table["slide_id"]
        joined = {p: [[slides[row], self.digests[slides[row]]] for row in rows[p]] for p in rows}
        tuned = set(self.tuned_on)
        return replace(
            self,
            table=_patient_table(self.table, rows, refuse=refuse),
            bags=Bags(sorted_bags.features, sorted_bags.offsets[ends], tuple(rows)),
            digests={patient: digest_of(slides=pairs) for patient, pairs in joined.items()},
            tuned_on=tuple(p for p in rows if tuned & set(slides[rows[p]])),
            parts=tuple(_parts(slides[rows[p]], self.bags.lengths[rows[p]]) for p in rows),
        )


def gather(run: RunDir, records: Sequence[SlideRecord], encoder: str) -> SlideBags:
    """Read the features of `records` from `encoder` (a folder name under embed/).

    Slides that are empty, failed or not yet embedded are left out. Raises MilError if none is left, if features are
    older than their patches, or if slides were embedded with different weights or settings.
    """
    stores = {record.slide_id: existing_store(run.feature_store(encoder, record.slide_id)) for record in records}
    left_out = {
        record.slide_id: _why_missing(run, record, encoder) for record in records if stores[record.slide_id] is None
    }
    found = [record for record in records if record.slide_id not in left_out]
    if not found:
        raise _nothing(encoder)
    cohort = read_cohort_features([path for path in stores.values() if path is not None])
    for record, header in zip(found, cohort.headers, strict=True):
        _check_current(run, record, header, encoder)
    full = np.flatnonzero(np.diff(cohort.offsets))
    left_out |= {found[i].slide_id: "empty" for i in np.flatnonzero(np.diff(cohort.offsets) == 0)}
    if not len(full):
        raise _all_empty(left_out)
    kept, headers = [found[i] for i in full], [cohort.headers[i] for i in full]
    check_alike(headers)
    ids = tuple(record.slide_id for record in kept)
    # An empty slide has no rows, so leaving out its offset leaves out the slide.
    offsets = np.concatenate([cohort.offsets[full], cohort.offsets[-1:]])
    return SlideBags(
        table=_table(kept, [content_of(header) for header in headers]),
        bags=Bags(cohort.features, offsets, ids),
        encoder=headers[0].extra["encoder"],
        specs=headers[0].specs,
        digests={slide: header.digest for slide, header in zip(ids, headers, strict=True)},
        left_out={record.slide_id: left_out[record.slide_id] for record in records if record.slide_id in left_out},
        adapter=str(headers[0].extra.get("adapter", "")),
        tuned_on=tuple(slide for slide, header in zip(ids, headers, strict=True) if header.extra.get("tuned_on")),
        own_stain=tuple(
            slide
            for slide, header in zip(ids, headers, strict=True)
            if not (header.extra.get("stain") or {}).get("normalised", True)
        ),
    )


def outcomes_of(records: Sequence[SlideRecord], bag: str) -> pd.DataFrame:
    """Ids and outcomes of all slides or all patients (then without slide_id), whether they have features or not."""
    table = _table(records, [""] * len(records)).drop(columns=CONTENT)
    if bag != "patient":
        return table
    codes, names = pd.factorize(table["patient_id"])
    rows = {str(name): np.flatnonzero(codes == code) for code, name in enumerate(names)}
    return _patient_table(table, rows, refuse=False).drop(columns="slide_id")


def _nothing(encoder: str) -> MilError:
    how = "embed-slides" if POOLED_MARK in encoder else f"embed --model {encoder}"
    return MilError(f"no slide has features of {encoder}", todo=f"Run first: wsi-pipeline {how}")


def _all_empty(left_out: Mapping[str, str]) -> MilError:
    """Embedding again would not help: the slides that were embedded have no patches."""
    reasons = listed([f"{slide} {why}" for slide, why in left_out.items()])
    return MilError(f"no slide has patches: {reasons}", todo=EMPTY_TODO)


def _chosen(bags: Bags, rows: NDArray[np.int64]) -> Bags:
    """The bags at `rows`; the same object if that is all rows in order, to avoid copying large features."""
    return bags if np.array_equal(rows, np.arange(len(bags))) else bags.subset(rows)


def _parts(slides: pd.Series[str], lengths: NDArray[np.int64]) -> tuple[BagPart, ...]:
    """Position of each slide within its patient's bag."""
    ends = np.cumsum(lengths)
    return tuple(BagPart(slide, int(end - n), int(end)) for slide, n, end in zip(slides, lengths, ends, strict=True))


def _patient_table(table: pd.DataFrame, rows: Mapping[str, NDArray[np.int64]], *, refuse: bool) -> pd.DataFrame:
    """One row per patient; several sites are joined; patients who share a slide file have equal `content`."""
    found: dict[str, list[Any]] = {"slide_id": list(rows), "patient_id": list(rows)}
    for column in table.columns.drop(["slide_id", "patient_id", CONTENT], errors="ignore"):
        found[column] = [_agreed(table.iloc[rows[patient]], column, refuse=refuse) for patient in rows]
    if CONTENT in table:
        linked = joined([codes_of(table["patient_id"]), codes_of(table[CONTENT])])
        found[CONTENT] = [table[CONTENT].iloc[int(np.argmax(linked == linked[slides[0]]))] for slides in rows.values()]
    return pd.DataFrame(found, dtype=object)


def _agreed(slides: pd.DataFrame, column: str, *, refuse: bool) -> Any:
    """The value that a patient's slides agree on in a column; None if they have none."""
    known = slides[slides[column].notna()]
    values = list(dict.fromkeys(known[column]))
    if len(values) < 2:
        return values[0] if values else None
    if column == "site":
        return " + ".join(sorted(map(str, values)))
    if not refuse:
        return None
    first = known.drop_duplicates(column)
    named = ", ".join(f"{value} ({slide})" for value, slide in zip(first[column], first["slide_id"], strict=True))
    raise MilError(
        f"slides of patient {slides['patient_id'].iloc[0]} differ in {column}: {named}",
        todo="With --bag patient all slides of a patient share their values: correct the CSV, or use --bag slide.",
    )


def _table(records: Sequence[SlideRecord], contents: Sequence[str]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {
        "slide_id": [record.slide_id for record in records],
        "patient_id": [record.patient_id for record in records],
        "label": [record.label for record in records],
    }
    for name in ("time", "event", "split", "site"):
        values = [getattr(record, name) for record in records]
        if any(value is not None for value in values):
            columns[name] = values
    columns[CONTENT] = list(contents)
    return pd.DataFrame(columns, dtype=object)


def _why_missing(run: RunDir, record: SlideRecord, encoder: str) -> str:
    failed = read_status(run.status(record.slide_id), record.slide_id).failed
    return f"failed in {failed[0]}" if failed else f"not embedded with {encoder}"


def content_of(header: Header) -> str:
    """Digest that is equal for stores of the same file: digest of the slide, or of the imported file without one."""
    imported = header.extra.get(IMPORTED) or {}
    return header.slide.quick_digest or str(imported.get("content", ""))


def _check_current(run: RunDir, record: SlideRecord, header: Header, encoder: str) -> None:
    """Check that features computed here belong to the current patches: same digest and same rows."""
    if POOLED in header.extra:
        _check_pooled(run, record, header, encoder)
        return
    path = existing_store(run.patch_store(record.slide_id))
    if path is None or IMPORTED in header.extra:
        return  # patches of another tool are not ours to compare
    patches = read_header(path, PATCH_FORMAT)
    if patches is None:
        return
    features = existing_store(run.feature_store(encoder, record.slide_id))
    same = patches.digest == header.parent_digest
    if not same or (features is not None and not same_rows(path, features)):
        raise MilError(
            f"features of {encoder} are older than the slide's patches"
            if not same
            else f"features of {encoder} do not match the slide's patches: the coordinates differ",
            slide=record.slide_id,
            todo=f"Run again: wsi-pipeline embed --model {header.extra['encoder']['name']}",
        )


def _check_pooled(run: RunDir, record: SlideRecord, header: Header, name: str) -> None:
    """Check that a slide embedding belongs to the current features, if there are any; imported ones name none."""
    if not header.parent_digest:
        return
    encoder = str(header.extra[POOLED]["encoder"])
    path = existing_store(run.feature_store(encoder, record.slide_id))
    features = read_header(path, FEATURE_FORMAT) if path else None
    if features is not None and features.digest != header.parent_digest:
        raise MilError(
            f"the slide embedding {name} is older than the slide's features of {encoder}",
            slide=record.slide_id,
            todo=f"Run again: wsi-pipeline embed-slides --features {encoder}",
        )


def same_rows(one: Path, other: Path) -> bool:
    """Whether two stores of a slide have the same coordinates, row for row."""
    with open_store(one) as a, open_store(other) as b:
        return a.shape(COORDS) == b.shape(COORDS) and np.array_equal(a.read(COORDS), b.read(COORDS))


def tuned_on_warnings(slides: SlideBags) -> list[str]:
    """A warning if the encoder of the features was tuned on labels of tested patients."""
    if not slides.tuned_on:
        return []
    return [
        f"The encoder was tuned on labels of patients of {len(slides.tuned_on)} of these "
        f"{counted(len(slides.table), 'slide')} ({listed(slides.tuned_on)}): the metrics may be too optimistic. "
        "Tune on other patients, or compare with an encoder not tuned here."
    ]


def stain_warnings(slides: SlideBags) -> list[str]:
    """A warning if some slides were normalised and others kept their own stain."""
    if not slides.own_stain:
        return []
    count = len(slides.own_stain)
    return [
        f"{counted(count, 'slide')} {agreed(count, 'keeps')} the stain of the scan, all others were normalised: "
        f"{listed(slides.own_stain)}. A model can tell them apart by that: look at stain/, or leave them out."
    ]
