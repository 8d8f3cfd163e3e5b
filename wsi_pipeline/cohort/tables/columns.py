"""The meaning of CSV columns: our names, and aliases from other tools.

Names are compared in lower case, with underscores for everything but letters and digits. Aliases come from the CSV
conventions of TRIDENT (`wsi`), CLAM (`slide_id`, `case_id`), STAMP (`FILENAME`, `PATIENT`) and cohort portals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_pipeline.cohort.table_words import is_missing
from wsi_pipeline.cohort.tables.survival_columns import EVENTS, TIMES, SurvivalColumns, survival_columns

ALIASES: dict[str, tuple[str, ...]] = {
    "slide_id": ("slide", "slide_name", "slidename", "id", "image_id", "slideid", "name"),
    "path": (
        "wsi",
        "filename",
        "file_name",
        "file",
        "filepath",
        "file_path",
        "slide_path",
        "wsi_path",
        "image",
        "image_path",
        "slide_file",
        "location",
    ),
    "patient_id": (
        "patient",
        "case_id",
        "case",
        "caseid",
        "patientid",
        "patient_name",
        "subject",
        "subject_id",
        "submitter_id",
        "donor",
        "donor_id",
        "case_submitter_id",
        "cases_submitter_id",
        "cases_case_id",
        "bcr_patient_barcode",
        "bcr_patient_uuid",
        "patient_barcode",
        "participant",
        "participant_id",
        "individual",
        "individual_id",
        "person_id",
        "pid",
        "ptid",
        "mrn",
        "medical_record_number",
        "animal_id",
        "mouse_id",
    ),
    "label": ("target", "class", "diagnosis", "y", "ground_truth", "outcome", "category"),
    "mpp": ("mpp_x", "microns_per_pixel", "um_per_px", "resolution_um", "pixel_size"),
    "site": ("center", "centre", "hospital", "institution", "lab", "tissue_source_site"),
    "stain": ("staining", "stain_type"),
    "split": ("set", "partition", "subset", "fold_split"),
    "annotation": ("annotations", "annotation_path", "annotation_file", "geojson"),
    "image": ("scene", "series", "image_index"),
    "channel": ("channels",),
    "plane": ("focal_plane", "z_plane"),
    "time": TIMES,
    "event": EVENTS,
    "tissue": ("tissue_mask", "tissue_path", "tissue_file", "tissue_geojson"),
    "tissue_mpp": ("tissue_mask_mpp", "mask_mpp"),
}
"""Our column name -> aliases, most specific first."""


PATIENT_NAME = re.compile(
    r"(\w+_)?(patient|participant|subject)s?_?(id|nr|no|num|number|code|key|uid|uuid|barcode|identifier|pseudonym)"
    r"|(pat|pt|person|individual|case|donor|animal|mouse)s?_?(id|nr|no|num|number|code|uid|uuid|barcode|identifier)"
)
"""Other spellings of a column of patients, as `normalise` gives them."""

_IN_A_LIST = re.compile(r"^(cases|associated_entities)_0_(?=(case|submitter)_id$)")
"""Prefixes of names in flattened GDC JSON: `cases.0.submitter_id`, `cases[0].case_id`."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a header mean.

    places     our name -> position of the column
    unused     positions of columns not used
    faults     what must be corrected
    notes      what the user should know
    survival   how time and event are given
    """

    places: dict[str, int]
    unused: tuple[int, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    survival: SurvivalColumns


def normalise(name: str) -> str:
    """`Patient-ID ` -> `patient_id`, `Overall Survival (Months)` -> `overall_survival_months`."""
    return re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")


def map_columns(
    header: Sequence[str],
    body: Sequence[Sequence[str]] = (),
    patient_column: str | None = None,
    label_column: str | None = None,
) -> Columns:
    """Find our columns in a CSV header; `body` are the rows below.

    patient_column   the column of patients, if the user names one
    label_column     the column of labels, if the user names one

    An exact name wins over an alias; two aliases of one column are a fault, because the user must choose, unless
    both name the same patients.
    """
    names = [normalise(name) for name in header]
    places: dict[str, int] = {}
    faults: list[str] = []
    for ours in ALIASES:
        if ours in ("time", "event"):
            continue
        exact: list[int] = []
        if ours == "patient_id":
            hits = patient_columns(header, body, patient_column)
        elif ours == "label" and label_column is not None:
            place = find_column(header, label_column)
            hits = [] if place is None else [place]
        else:
            exact = [i for i, name in enumerate(names) if name == ours]
            hits = exact or [i for i, name in enumerate(names) if name in ALIASES[ours]]
        if ours == "path" and not exact:
            hits = _files(hits, names, body)
        if ours == "image":
            hits = [hit for hit in hits if hit not in places.values()]
        if len(hits) > 1:
            switch = {"patient_id": "--patient-column", "label": "--label-column"}.get(ours)
            hint = f", or name it with {switch}" if switch else ""
            faults.append(f"columns {', '.join(repr(header[i]) for i in hits)} all mean {ours}; keep one{hint}")
        elif hits:
            places[ours] = hits[0]
    survival = survival_columns(names, header, body)
    places |= {ours: place for ours, place in (("time", survival.time), ("event", survival.event)) if place is not None}
    used = {*places.values(), *survival.used}
    unused = tuple(i for i in range(len(header)) if i not in used)
    return Columns(places, unused, (*faults, *survival.faults), survival.notes, survival)


def _files(hits: list[int], names: Sequence[str], body: Sequence[Sequence[str]]) -> list[int]:
    """Columns of paths. A column `image` counts only if there is no other and if it does not hold image numbers."""
    others = [hit for hit in hits if names[hit] != "image"]

    def has_names(place: int) -> bool:
        return not body or any(place < len(row) and not _is_number(row[place]) for row in body)

    return others or [hit for hit in hits if has_names(hit)]


def _is_number(cell: str) -> bool:
    return is_missing(cell.strip()) or cell.strip().isdigit()


def is_patient_name(name: str) -> bool:
    """Whether the name is that of a column of patients."""
    plain = _IN_A_LIST.sub("", normalise(name))
    return plain == "patient_id" or plain in ALIASES["patient_id"] or PATIENT_NAME.fullmatch(plain) is not None


def find_column(header: Sequence[str], wanted: str) -> int | None:
    """Position of the column that a user names, by exact spelling, else by normalised name; None if not found."""
    if wanted in header:
        return list(header).index(wanted)
    names = [normalise(name) for name in header]
    return names.index(normalise(wanted)) if normalise(wanted) in names else None


def patient_columns(header: Sequence[str], body: Sequence[Sequence[str]], wanted: str | None = None) -> list[int]:
    """Columns of patients; only one of several equivalent ones, such as GDC's `case_id` and `case_submitter_id`."""
    if wanted is not None:
        place = find_column(header, wanted)
        return [] if place is None else [place]
    names = [normalise(name) for name in header]
    filled = [any(i < len(row) and not is_missing(row[i]) for row in body) for i in range(len(names))]
    names = [_IN_A_LIST.sub("", name) for name in names]
    exact = [i for i, name in enumerate(names) if name == "patient_id"]
    known = [i for i, name in enumerate(names) if name in ALIASES["patient_id"]]
    spelt = [i for i, name in enumerate(names) if PATIENT_NAME.fullmatch(name)]
    levels = (exact, known, spelt)
    hits = next((found for level in levels if (found := [i for i in level if filled[i]])), [*exact, *known, *spelt][:1])
    first = hits[:1]
    return first if all(_same(body, first[0], other) for other in hits[1:]) else hits


def _same(body: Sequence[Sequence[str]], one: int, other: int) -> bool:
    """Whether two columns group the rows identically."""
    pairs = {(row[one].strip(), row[other].strip()) for row in body if max(one, other) < len(row)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 0
