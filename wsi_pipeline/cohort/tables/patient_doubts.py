"""Other columns, or parts of slide names, that may be patients if the patients are not stated.

A column may be patients if its values repeat over slides and each has one outcome, and if that would be unlikely
by chance. Columns whose values look like patients are recognised by name (`scanner`, `age`) or by size:
a few values for many slides are a site or a scanner, not patients.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from wsi_pipeline.cohort.records import Cohort, SlideRecord
from wsi_pipeline.cohort.table_words import is_missing
from wsi_pipeline.cohort.tables.columns import normalise

Key = str | None
Outcome = tuple[str | float | int | None, ...]

FEWEST, FEWEST_WORDS, MOST_SLIDES = 5, 10, 12
"""For columns not named as patients: fewest values (more if without digits) and most slides per value on average."""
NAMED_SLIDES = 30
"""Slides a patient may have on average if the column's name says `patient`."""
UNLIKELY = 0.05
"""Highest probability that each value has one outcome by chance."""
_FEW_CLASSES = 20

_PERSON = frozenset({
    "patient", "patients", "pat", "pt", "participant", "subject", "case", "person", "donor", "individual", "mrn", "pid",
    "ptid", "animal", "mouse", "submitter",
})  # fmt: skip
_NO_PERSON = frozenset({
    "scanner", "site", "stain", "staining", "batch", "date", "day", "month", "year", "age", "sex", "gender", "race",
    "ethnicity", "grade", "stage", "subtype", "type", "organ", "tissue", "center", "centre", "hospital", "lab",
    "laboratory", "vendor", "magnification", "objective", "mpp", "resolution", "tnm", "histology", "size", "cohort",
    "dataset", "project", "fold", "set", "split", "label", "class", "diagnosis", "score", "status", "time", "width",
    "height", "count", "marker", "gene", "mutation", "percent", "percentage", "location", "region", "country", "model",
    "device", "protocol", "version", "comment", "note", "notes", "pathologist", "annotator", "rater", "reader",
    "reviewer", "quality", "therapy", "treatment", "morphology", "icd", "oncotree", "pattern", "molecular", "group",
    "finding", "kind", "entity", "disease", "cancer", "tumor", "tumour", "primary", "category",
})  # fmt: skip
"""Words in the name of a column; the second group takes precedence (`patient_age`)."""

_BARCODE = re.compile(
    r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}|TARGET-\d{2}-[A-Z0-9]{6}|C3[LN]-\d{5}|GTEX-[A-Z0-9]{4,5}|HTA\d+_\d+)(?![A-Z0-9])",
    re.I,
)
_NUMBERED = re.compile(
    r"(patients?|pat|pt|p|cases?|subject|subj|sub|donor|participant|person|individual|animal|mouse)[-_ .#]*\d+(?!\d)",
    re.I,
)
_ENDINGS = (
    re.compile(r"(.*\d.*?)[-_ .#(]+[A-Za-z]{0,4}\d{0,3}[A-Za-z]?\)?", re.S),
    re.compile(r"(.*\d.*?)[-_ .]+[A-Za-z]{0,6}[-_ .]*\d{0,3}[-_ .]+[A-Za-z]{0,4}\d{0,3}[A-Za-z]?", re.S),
    re.compile(r"(.*\d)[A-Za-z]", re.S),
)
"""`P01_1`, `12-A2`, `case12_slide_3`, `12a`: the part before is the patient, if it has a digit."""
_LAST = re.compile(rf".*[-_ .#(](?P<who>{_BARCODE.pattern}|{_NUMBERED.pattern})\)?", re.I | re.S)
_LAST_NUMBER = re.compile(r".*[-_ .#(](?P<who>[A-Za-z]{0,4}[-_]?\d{2,}[A-Za-z]?)\)?", re.S)
"""`HE_0_P00`, `slide1-012`: the patient comes last."""
_DATE = re.compile(r"(19|20)\d\d([-_.]?\d\d){0,2}|\d\d?[-/.]\d\d?[-/.](19|20)?\d\d")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


@dataclass(frozen=True)
class Doubt:
    """A candidate for patients: a column (None: parts of slide names), its number of values and of slides.

    at_end   the part is the end of the names, not their beginning
    """

    column: str | None
    values: int
    slides: int
    example: str
    example_slides: int
    at_end: bool = False

    def __str__(self) -> str:
        count = f"over {self.slides} slides, {self.example_slides} of them {self.example!r}"
        if self.column is None:
            part = "suffixes" if self.at_end else "prefixes"
            return f"slide names share {part}, as slides of one patient do ({self.values} {part} {count})"
        return f"column {self.column!r} looks like patients ({self.values} values {count})"


def doubt_words(cohort: Cohort) -> list[tuple[str, str]]:
    """Reasons why the patients of these slides are uncertain, most likely first: a sentence and what to do about it."""
    found = []
    for doubt in patient_doubts(cohort.records, cohort.without_patient, cohort.kept):
        how = "Add a column patient_id to the CSV and run wsi-pipeline tile again"
        if doubt.column is not None:
            how = f"Use --patient-column {shlex.quote(doubt.column)}"
        slides = f"{len(cohort.without_patient)} of the" if cohort.patients_stated == "some" else "these"
        found.append(
            (
                f"the patients of {slides} slides are not known, and {doubt}",
                f"{how}, or --each-slide-a-patient if no patient has two slides",
            )
        )
    return found


def image_doubt(names: Sequence[str]) -> str:
    """A sentence if several image names, without folder and suffix, begin with the same patient; else ""."""
    sizes = Counter(begins.casefold() for name in names if (begins := _begins(name)) != name)
    repeated = {name: size for name, size in sizes.items() if size > 1}
    if not repeated:
        return ""
    example, most = max(repeated.items(), key=lambda item: item[1])
    return (
        f"image names share prefixes, as images of one patient do ({len(sizes)} prefixes over {sum(sizes.values())} "
        f"images, {most} of them {example!r})"
    )


def may_be_patients(
    records: Sequence[SlideRecord], columns: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The columns without another meaning that may be patients, or are named like patients and repeat."""
    everyone = frozenset(record.slide_id for record in records)
    doubted = {doubt.column for doubt in patient_doubts(records, everyone, columns)}
    return {name: cells for name, cells in columns.items() if name in doubted or _named_and_repeats(name, cells)}


def _named_and_repeats(header: str, cells: Sequence[str]) -> bool:
    known = [cell for cell in cells if not is_missing(cell)]
    return 1 < len(set(known)) < len(known) and _named_person(header)


def patient_doubts(
    records: Sequence[SlideRecord], without: frozenset[str], columns: Mapping[str, Sequence[str]]
) -> list[Doubt]:
    """Candidates for patients, most likely first; empty if all patients are stated.

    without   slides whose patient is not stated
    columns   header -> cell of each record, for columns without another meaning
    """
    if not without:
        return []
    outcomes: list[Outcome] = [(r.label, r.time, r.event) if r.time and r.event is not None else (r.label, None, None)
                               for r in records]  # fmt: skip
    found = []
    if len(without) == len(records):
        for header, cells in columns.items():
            keys: list[Key] = [None if is_missing(cell) else cell for cell in cells]
            named = _named_person(header)
            if not _named_otherwise(header) and (named or not _is_measured(keys, outcomes)):
                found += [(not named, doubt) for doubt in _doubt(header, keys, outcomes, named=named)]
    doubts = _doubt(None, _torn(records, without, [_begins(r.slide_id) for r in records]), outcomes, named=True)
    found += [(False, doubt) for doubt in doubts]
    if not found:
        found += [(False, doubt) for doubt in _doubts_at_the_end(records, without, outcomes)]
    if not found and len(without) == len(records):
        for ending in _ENDINGS:
            found += [(True, doubt) for doubt in _doubt(None, _cut(records, ending), outcomes, named=False)]
    return [doubt for _, doubt in sorted(found, key=lambda item: item[0])]


def _torn(records: Sequence[SlideRecord], without: frozenset[str], parts: Sequence[str]) -> list[Key]:
    """The part of each slide's name that may be its patient; the whole name if the table states the patient."""
    first: dict[str, str] = {}
    names = [first.setdefault(part.casefold(), part) for part in parts]
    known = defaultdict(set)
    for name, record in zip(names, records, strict=True):
        known[name].add(record.patient_id)
    open_to = {name for name, record in zip(names, records, strict=True) if record.slide_id in without}
    return [name if name in open_to and len(known[name]) > 1 else record.slide_id
            for name, record in zip(names, records, strict=True)]  # fmt: skip


def _doubts_at_the_end(
    records: Sequence[SlideRecord], without: frozenset[str], outcomes: Sequence[Outcome]
) -> list[Doubt]:
    """Patients that slide names end with, recognised by a word, a portal's rule, or many numbers of few slides each."""
    found = _doubt(None, _torn(records, without, _ends(records, _LAST)), outcomes, named=True)
    if not found and len(without) == len(records):
        found = _doubt(None, list(_ends(records, _LAST_NUMBER)), outcomes, named=False)
    return [replace(doubt, at_end=True) for doubt in found]


def _ends(records: Sequence[SlideRecord], ending: re.Pattern[str]) -> list[str]:
    """The ending of each name; the whole name if it has no such ending, or if the ending is a date."""
    found = [ending.fullmatch(record.slide_id) for record in records]
    return [
        hit["who"] if hit and not _DATE.fullmatch(hit["who"]) else record.slide_id
        for hit, record in zip(found, records, strict=True)
    ]


def _doubt(column: str | None, keys: Sequence[Key], outcomes: Sequence[Outcome], *, named: bool) -> list[Doubt]:
    """A `Doubt` if these groups of slides may be patients, else None."""
    trained = [any(value is not None for value in outcome) for outcome in outcomes]
    if any(trained):  # slides without an outcome are in no fold
        keys = [key if used else None for key, used in zip(keys, trained, strict=True)]
    elif not named:
        return []
    sizes = Counter(key for key in keys if key is not None)
    repeated = [key for key, size in sizes.items() if size > 1]
    if len(sizes) < 2 or not repeated:
        return []
    few = sum(sizes.values()) <= NAMED_SLIDES * len(sizes)
    likely = few if named else _looks_like(keys, sizes, outcomes)
    most = max(repeated, key=lambda key: sizes[key])
    return [Doubt(column, len(sizes), sum(sizes.values()), most, sizes[most])] if likely else []


def _looks_like(keys: Sequence[Key], sizes: Counter[str], outcomes: Sequence[Outcome]) -> bool:
    """Whether unnamed groups may be patients: many, small, each with one outcome, and not by chance."""
    slides = sum(sizes.values())
    fewest = FEWEST if any(letter.isdigit() for key in sizes for letter in key) else FEWEST_WORDS
    if len(sizes) < fewest or slides > MOST_SLIDES * len(sizes) or slides < len(keys) / 2:
        return False
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for key, outcome in zip(keys, outcomes, strict=True):
        if key is not None:
            groups[key].append(outcome)
    if any(
        len({value for value in field if value is not None}) > 1
        for group in groups.values()
        for field in zip(*group, strict=True)
    ):
        return False
    if _is_recoded(groups):
        return False
    return _by_chance(list(groups.values())) < UNLIKELY


def _is_recoded(groups: Mapping[str, Sequence[Outcome]]) -> bool:
    """Whether each class has one value, as in a column that recodes the label."""
    classes = [{outcome[0] for outcome in group if outcome[0] is not None} for group in groups.values()]
    names = [next(iter(found)) for found in classes if found]
    return len(set(names)) == len(names) <= _FEW_CLASSES and not any(o[1] for group in groups.values() for o in group)


def _by_chance(groups: Sequence[Sequence[Outcome]]) -> float:
    """Approximate probability that every group has a single outcome if outcomes are assigned at random."""
    counts = Counter(outcome for group in groups for outcome in group)
    shares = [count / sum(counts.values()) for count in counts.values()]
    return math.prod(sum(share ** len(group) for share in shares) for group in groups if len(group) > 1)


def _is_measured(keys: Sequence[Key], outcomes: Sequence[Outcome]) -> bool:
    """Whether values are dates, or measurements that the label may be derived from, rather than patient numbers."""
    known = [(key, outcome[0]) for key, outcome in zip(keys, outcomes, strict=True) if key is not None]
    if all(_DATE.match(key) for key, _ in known):
        return True
    if not known or not all(_NUMBER.fullmatch(key) and len(key) < 16 for key, _ in known):
        return False
    values = [float(key.replace(",", ".")) for key, _ in known]
    if any(value != round(value) for value in values):
        return True
    dense = len(set(values)) >= 0.8 * (max(values) - min(values) + 1)
    ranges: dict[object, tuple[float, float]] = {}
    for value, (_, label) in zip(values, known, strict=True):
        low, high = ranges.get(label, (value, value))
        ranges[label] = (min(low, value), max(high, value))
    ordered = sorted(ranges.values())
    cut = len(ordered) > 1 and all(a[1] < b[0] for a, b in pairwise(ordered))
    return cut and not dense


def _named_person(header: str) -> bool:
    return bool(_PERSON & set(normalise(header).split("_"))) and not _named_otherwise(header)


def _named_otherwise(header: str) -> bool:
    return bool(_NO_PERSON & set(normalise(header).split("_")))


def _begins(slide_id: str) -> str:
    """The patient at the start of a name, by the rules of portals or a word for patients; else the whole name."""
    found = _BARCODE.match(slide_id) or _NUMBERED.match(slide_id)
    return found[0] if found else slide_id


def _cut(records: Sequence[SlideRecord], ending: re.Pattern[str]) -> list[Key]:
    """Names without their suffix; unchanged if they have none, or begin with a date."""
    found = [ending.fullmatch(record.slide_id) for record in records]
    return [
        hit[1] if hit and not _DATE.fullmatch(hit[1]) else record.slide_id
        for hit, record in zip(found, records, strict=True)
    ]
