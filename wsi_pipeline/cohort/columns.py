"""Which column of a CSV means what: our names, and those the peers' users already have in their files.

Names are compared in lower case with spaces, dashes and dots as underscores. Aliases come from the CSV
conventions of TRIDENT (`wsi`), CLAM (`slide_id`, `case_id`), STAMP (`FILENAME`, `PATIENT`) and cohort portals.
"""

from __future__ import annotations

import re

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
    ),
    "label": ("target", "class", "diagnosis", "y", "ground_truth", "outcome", "category"),
    "mpp": ("mpp_x", "microns_per_pixel", "um_per_px", "resolution_um", "pixel_size"),
    "site": ("center", "centre", "hospital", "institution", "lab", "tissue_source_site"),
    "stain": ("staining", "stain_type"),
    "split": ("set", "partition", "subset", "fold_split"),
    "annotation": ("annotations", "annotation_path", "annotation_file", "geojson"),
    "time": (
        "survival_time",
        "time_to_event",
        "follow_up",
        "followup",
        "follow_up_time",
        "survival_days",
        "survival_months",
        "os_time",
        "os_days",
        "os_months",
    ),
    "event": ("event_observed", "os_event", "os_status", "vital_status", "death", "dead", "deceased"),
}
"""Our column name -> other names it is known by, most specific first."""


def normalise(name: str) -> str:
    """`Patient-ID ` -> `patient_id`."""
    return re.sub(r"[\s\-.]+", "_", name.strip().lower()).strip("_")


def map_columns(header: list[str]) -> tuple[dict[str, int], list[str], list[str]]:
    """Find our columns in a CSV header.

    Returns (our name -> column index, columns nobody claimed, faults). An exact name wins over an alias; two
    aliases of one column are a fault, as it is not for us to choose.
    """
    names = [normalise(name) for name in header]
    found: dict[str, int] = {}
    faults: list[str] = []
    for ours, aliases in ALIASES.items():
        exact = [i for i, name in enumerate(names) if name == ours]
        hits = exact or [i for i, name in enumerate(names) if name in aliases]
        if len(hits) > 1:
            faults.append(f"columns {', '.join(repr(header[i]) for i in hits)} all mean {ours}; keep one")
        elif hits:
            found[ours] = hits[0]
    unused = [header[i] for i in range(len(header)) if i not in found.values()]
    return found, unused, faults
