"""Checks across rows: clashing ids, texts a spreadsheet would run, contradictory patients."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsi_pipeline.cohort.formulas import is_formula
from wsi_pipeline.cohort.records import OUTCOME, Fault, SlideRecord
from wsi_pipeline.files.addresses import is_address
from wsi_pipeline.system.redaction import redact

MAX_ID_LENGTH = 150
SHOWN = 80
"""Maximum number of characters of a cell in a message."""
_TEXTS = ("patient_id", "label", "site", "stain")


def check_ids(ids: Iterable[tuple[int | None, str]]) -> list[Fault]:
    """Faults for ids that appear twice or cannot name files; `ids` are pairs of row and id."""
    faults, first = [], dict[str, int | None]()
    for row, slide_id in ids:
        if slide_id in first:
            where = f" (first in row {first[slide_id]})" if first[slide_id] else ""
            faults.append(Fault(row, f"slide_id {slide_id!r} appears twice{where}; ids must be unique"))
        first.setdefault(slide_id, row)
        if slide_id and (problem := id_problem(slide_id)):
            faults.append(Fault(row, f"slide_id {slide_id!r} {problem}; it names files, so use a plain name"))
    return faults


def id_problem(slide_id: str) -> str | None:
    """Why `slide_id` cannot name a file everywhere, or None if it can."""
    if "/" in slide_id or "\\" in slide_id:
        return "holds a path separator"
    if slide_id.startswith("."):
        return "starts with a dot"
    if any(not char.isprintable() for char in slide_id) or slide_id != slide_id.strip():
        return "holds a control character or outer space"
    if len(slide_id.encode()) > MAX_ID_LENGTH:
        return f"is longer than {MAX_ID_LENGTH} bytes"
    if is_formula(slide_id):
        return "would be run as a formula by a spreadsheet program"
    return None


def check_texts(numbered: list[tuple[int, SlideRecord]]) -> list[Fault]:
    """Faults for texts that would run as formulas, or that contain further rows after an unclosed quotation mark."""
    texts = [
        (row, name, value)
        for row, record in numbered
        for name in _TEXTS
        if isinstance(value := getattr(record, name), str) and (name != "patient_id" or value != record.slide_id)
    ]
    formulas = [
        Fault(row, f"{name} {value[:SHOWN]!r} would be run as a formula by a spreadsheet program; change it")
        for row, name, value in texts
        if is_formula(value)
    ]
    breaks = [
        Fault(row, f"{name} {value[:SHOWN]!r} holds a line break (an unclosed quotation mark?)")
        for row, name, value in texts
        if "\n" in value or "\r" in value
    ]
    return formulas + breaks


def check_patients(numbered: list[tuple[int, SlideRecord]], mixed_labels: bool) -> list[Fault]:
    """Faults for patients with two labels, splits, times or events."""
    faults = []
    always = ("split", *OUTCOME)
    for what in always if mixed_labels else ("label", *always):
        seen: dict[str, tuple[int, str]] = {}
        for row, record in numbered:
            value = getattr(record, what)
            if value is None:
                continue
            first_row, first = seen.setdefault(record.patient_id, (row, value))
            if value != first:
                hint = "; if slides of one patient may differ, pass --mixed-labels" if what == "label" else ""
                faults.append(
                    Fault(
                        row,
                        f"patient {record.patient_id!r} has two {what}s: {first!r} (row {first_row}), {value!r}{hint}",
                    )
                )
    return faults


def check_queries(cells: Iterable[tuple[int, str]]) -> list[Fault]:
    """Faults for web addresses of different files that are equal without their queries, which are not kept."""
    seen: dict[str, tuple[int, str]] = {}
    faults = []
    for row, cell in cells:
        address, mark, query = cell.strip().partition("#")[0].partition("?")
        if not mark or not is_address(address):
            continue
        first_row, first = seen.setdefault(address, (row, query))
        if query != first:
            faults.append(
                Fault(
                    row,
                    f"path differs from that of row {first_row} only by its query, the part behind `?`, which is not "
                    f"kept: {redact(address)}",
                )
            )
    return faults


def check_encoding(records: Iterable[SlideRecord]) -> list[Fault]:
    """Faults for paths that cannot be written into cohort.csv."""
    paths = (path for record in records for path in (record.path, record.annotation, record.tissue) if path is not None)
    return [Fault(None, f"path {str(path)!a} is not UTF-8; rename it") for path in paths if not _is_utf8(path)]


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # surrogates, which stand for bytes that cannot be decoded
        return False
    return True
