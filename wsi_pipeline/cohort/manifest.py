"""The manifest: which slides a cohort has, and what is known of each.

`read_cohort` takes a CSV, a folder, or a glob. It reads everything before it judges anything, so that one
run of the command shows every fault with its row.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from wsi_pipeline.cohort import cells
from wsi_pipeline.cohort.columns import map_columns
from wsi_pipeline.cohort.discover import at_home, find_slides, slide_id_of, with_suffix_found
from wsi_pipeline.cohort.formulas import is_formula
from wsi_pipeline.errors import ManifestError, UsageError

V = TypeVar("V")

MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "none", "null"})
SPLITS = ("train", "val", "test")
OUTCOME = ("time", "event")
MAX_ID_LENGTH = 150
MOST_FAULTS = 200
"""So many are listed; a table of a million rows of the wrong kind has a million of them."""
_SHOWN = 80
_SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
_TEXTS = ("patient_id", "label", "site", "stain")


@dataclass(frozen=True)
class SlideRecord:
    """One row of the manifest. `path` is absolute; `label`, `site`, ... are None where not given.

    `time` is in the table's own unit; `event` is 1 where the event was seen at that time, 0 where the patient was
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
    """All slides of a run, in the order of the manifest, and what was odd but not fatal."""

    records: tuple[SlideRecord, ...]
    source: str
    notes: tuple[Fault, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.records)

    @property
    def patients(self) -> int:
        """Number of different patients."""
        return len({record.patient_id for record in self.records})

    def label_counts(self) -> dict[str, int]:
        """Slides per label, most frequent first; slides without a label are not counted."""
        counts: dict[str, int] = defaultdict(int)
        for record in self.records:
            if record.label is not None:
                counts[record.label] += 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def event_counts(self) -> tuple[int, int]:
        """Patients whose time and event are known, and how many of them had the event."""
        known = {
            item.patient_id: item.event for item in self.records if item.time is not None and item.event is not None
        }
        return len(known), sum(known.values())

    def only(self, slide_ids: Sequence[str]) -> tuple[SlideRecord, ...]:
        """The records named; raises UsageError naming ids that are not in the cohort."""
        known = {record.slide_id for record in self.records}
        missing = [slide_id for slide_id in slide_ids if slide_id not in known]
        if missing:
            raise UsageError(f"not in the cohort: {', '.join(missing)}", todo=f"The cohort comes from {self.source}")
        return tuple(record for record in self.records if record.slide_id in set(slide_ids))


def read_cohort(sources: Sequence[str | Path], *, mixed_labels: bool = False) -> Cohort:
    """Read a cohort from one CSV, or from folders, globs and slide files.

    mixed_labels    let the slides of one patient carry different labels

    Raises ManifestError listing every fault with its row, UsageError for a spreadsheet and for a CSV beside other
    sources. What does not stop a cohort (a missing file, an empty label, a byte-order mark) is in `Cohort.notes`.
    """
    sources = [at_home(source) for source in sources]
    _refuse_odd_tables(sources)
    if len(sources) == 1 and _is_table(Path(sources[0])):
        return read_csv(Path(sources[0]), mixed_labels=mixed_labels)
    paths = find_slides(sources)
    records = [SlideRecord(slide_id_of(path), path, slide_id_of(path)) for path in paths]
    source = " ".join(str(item) for item in sources)
    faults = _check_ids((None, record.slide_id) for record in records)
    return _finish(records, source, faults)


def read_csv(path: Path, *, mixed_labels: bool = False) -> Cohort:
    """Read a manifest CSV; see `read_cohort` for what is raised and `manifests/README.md` for the columns."""
    text, notes = _decode(path)
    rows = _rows(text, _delimiter(text, notes), path)
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    columns, unused, faults_text = map_columns(header)
    faults = notes + [Fault(1, message) for message in faults_text]
    for one, other in (OUTCOME, OUTCOME[::-1]):
        if one in columns and other not in columns:
            faults.append(Fault(1, f"column {one} without a column {other}: no survival can be learned", fatal=False))
    if unused:
        faults.append(Fault(1, f"columns not used: {', '.join(repr(name) for name in unused)}", fatal=False))
    if "path" not in columns and "slide_id" not in columns:
        names = ", ".join(repr(name) for name in header) or "none"
        faults.append(Fault(1, f"no column `path` (or wsi, filename, ...); columns here: {names}"))
        return _finish([], str(path), faults)
    parsed = [(i, row) for i, row in enumerate(body, start=2) if any(cell.strip() for cell in row)]
    faults += [
        Fault(i, f"{len(row)} cells where the header has {len(header)} (a stray separator?)")
        for i, row in parsed
        if len(row) > len(header)
    ]
    numbered = [(i, _record(i, row, columns, path.resolve().parent, faults)) for i, row in parsed]
    faults += _check_ids((i, record.slide_id) for i, record in numbered)
    faults += _check_texts(numbered)
    faults += _check_patients(numbered, mixed_labels)
    return _finish([record for _, record in numbered], str(path), faults)


def _rows(text: str, delimiter: str, path: Path) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:  # a cell of more than 131,072 characters: an open quotation mark, or no CSV at all
        raise ManifestError(
            f"{path} is no CSV that can be read: {error}", todo="Look for a quotation mark that is not closed"
        ) from None


def to_csv(cohort: Cohort) -> str:
    """The cohort as CSV text, with our column names and absolute paths."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([item.name for item in fields(SlideRecord)])
    names = [item.name for item in fields(SlideRecord)]
    for record in cohort.records:
        values = (getattr(record, name) for name in names)
        writer.writerow(["" if value is None else str(value) for value in values])
    return out.getvalue()


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in {".csv", ".tsv", ".txt"} and not path.is_dir()


def _refuse_odd_tables(sources: Sequence[str | Path]) -> None:
    """A table that is no CSV, or not alone, would be taken for a slide."""
    paths = [Path(source) for source in sources]
    for path in paths:
        if path.suffix.lower() in _SPREADSHEETS and path.is_file():
            raise UsageError(f"{path} is a spreadsheet", todo="Save it as CSV (UTF-8) and name that")
    if len(paths) > 1 and any(_is_table(path) for path in paths):
        raise UsageError(
            f"a cohort comes from one table or none, got {len(paths)} sources: {' '.join(map(str, paths))[:_SHOWN]}",
            todo="Put all slides into one CSV, or name folders, globs and slide files only",
        )


def _decode(path: Path) -> tuple[str, list[Fault]]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", todo="Name a CSV, a folder of slides, or a glob"
        ) from None
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if raw.startswith(mark):
            return raw.decode(encoding, "replace"), [Fault(1, f"byte-order mark ({encoding}) skipped", fatal=False)]
    try:
        return raw.decode("utf-8"), []
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), [Fault(None, "not UTF-8: read as Windows-1252", fatal=False)]


def _delimiter(text: str, notes: list[Fault]) -> str:
    header = text.replace("\r", "\n").split("\n", 1)[0]
    best = max(",;\t", key=header.count)
    if best != "," and header.count(best):
        name = {";": "semicolons", "\t": "tabs"}[best]
        notes.append(Fault(1, f"cells are separated by {name}, not commas: read so", fatal=False))
        return best
    return ","


def _record(row: int, given: list[str], columns: dict[str, int], base: Path, faults: list[Fault]) -> SlideRecord:
    def cell(name: str) -> str:
        index = columns.get(name)
        return given[index].strip() if index is not None and index < len(given) else ""

    def optional(name: str) -> str | None:
        return None if cell(name).lower() in MISSING_WORDS else cell(name)

    name = cell("path") or (cell("slide_id") if "path" not in columns else "")
    path = _path(row, "path", name, base, faults)
    slide_id = cell("slide_id") if "path" in columns and cell("slide_id") else slide_id_of(Path(name))
    if not name:
        faults.append(Fault(row, "path is empty"))
    elif not slide_id:
        faults.append(Fault(row, f"path {name!r} names no slide"))
    elif not path.exists():
        shown = str(path) if str(path).isprintable() else repr(str(path))
        faults.append(Fault(row, f"file not found: {shown}", fatal=False))
    if "label" in columns and optional("label") is None:
        faults.append(Fault(row, f"empty label: {slide_id or name} is tiled and embedded, not trained on", fatal=False))
    if "patient_id" in columns and optional("patient_id") is None:
        faults.append(Fault(row, f"empty patient_id: {slide_id or name} counts as a patient of its own", fatal=False))
    time, event = (None if (optional(key) or "").lower() in cells.UNKNOWN else optional(key) for key in OUTCOME)
    if note := _outcome_note(slide_id or name, columns, time, event):
        faults.append(Fault(row, note, fatal=False))
    split = (optional("split") or "").lower() or None
    if split is not None and split not in SPLITS:
        faults.append(Fault(row, f"split must be one of {', '.join(SPLITS)}, got {split!r}"))
    outlines = optional("annotation")
    return SlideRecord(
        slide_id=slide_id,
        path=path,
        patient_id=optional("patient_id") or slide_id,
        label=optional("label"),
        mpp=_parsed(row, "mpp", optional("mpp"), cells.mpp, faults),
        site=optional("site"),
        stain=optional("stain"),
        split=split,
        annotation=_path(row, "annotation", outlines, base, faults) if outlines else None,
        time=_parsed(row, f"time of {slide_id}", time, cells.time, faults),
        event=_parsed(row, f"event of {slide_id}", event, cells.event, faults),
    )


def _path(row: int, column: str, name: str, base: Path, faults: list[Fault]) -> Path:
    """The file a cell names; a fault where it can name none."""
    try:
        if "\0" in name:
            raise ValueError("it holds a null character")
        path = (base / Path(name).expanduser()).absolute()
        return with_suffix_found(path) if column == "path" else path
    except (OSError, RuntimeError, ValueError) as error:  # too long a name; ~nobody without a home
        faults.append(Fault(row, f"{column} {name[:_SHOWN]!r} cannot name a file: {error}"))
        return base / "-"


def _parsed(row: int, what: str, text: str | None, parse: Callable[[str], V], faults: list[Fault]) -> V | None:
    """A cell by one of the parsers of `cells`; a fault where it does not fit."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        faults.append(Fault(row, f"{what} {error}"))
        return None


def _outcome_note(slide: str, columns: dict[str, int], time: str | None, event: str | None) -> str | None:
    """What is odd about half an outcome; no outcome at all is not."""
    if "time" in columns and "event" in columns and (time is None) != (event is None):
        return f"empty {'time' if time is None else 'event'}: {slide} is not used for survival"
    return None


def _check_ids(ids: Iterable[tuple[int | None, str]]) -> list[Fault]:
    faults, first = [], dict[str, int | None]()
    for row, slide_id in ids:
        if slide_id in first:
            where = f" (first in row {first[slide_id]})" if first[slide_id] else ""
            faults.append(Fault(row, f"slide_id {slide_id!r} is there twice{where}; ids must be unique"))
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


def _check_texts(numbered: list[tuple[int, SlideRecord]]) -> list[Fault]:
    """Texts that would come out of CSVs again as formulas, or that an open quotation mark has filled with rows."""
    texts = [
        (row, name, value)
        for row, record in numbered
        for name in _TEXTS
        if isinstance(value := getattr(record, name), str) and (name != "patient_id" or value != record.slide_id)
    ]
    formulas = [
        Fault(row, f"{name} {value[:_SHOWN]!r} would be run as a formula by a spreadsheet program; write it otherwise")
        for row, name, value in texts
        if is_formula(value)
    ]
    breaks = [
        Fault(row, f"{name} {value[:_SHOWN]!r} holds a line break (a quotation mark that is not closed?)")
        for row, name, value in texts
        if "\n" in value or "\r" in value
    ]
    return formulas + breaks


def _check_patients(numbered: list[tuple[int, SlideRecord]], mixed_labels: bool) -> list[Fault]:
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


def _check_encoding(records: Iterable[SlideRecord]) -> list[Fault]:
    """Paths that could not be written into cohort.csv."""
    paths = (path for record in records for path in (record.path, record.annotation) if path is not None)
    return [Fault(None, f"path {str(path)!a} is not UTF-8; rename it") for path in paths if not _is_utf8(path)]


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # the surrogates by which Python keeps other bytes
        return False
    return True


def _finish(records: list[SlideRecord], source: str, faults: list[Fault]) -> Cohort:
    faults = faults + _check_encoding(records)
    fatal = sorted((fault for fault in faults if fault.fatal), key=lambda fault: fault.row or 0)
    notes = sorted((fault for fault in faults if not fault.fatal), key=lambda fault: fault.row or 0)
    if not records and not fatal:
        fatal = [Fault(None, "no slides in it")]
    if fatal:
        told = [*fatal, *notes]
        lines = "\n".join(f"  {fault}" for fault in told[:MOST_FAULTS])
        if len(told) > MOST_FAULTS:
            lines += f"\n  and {len(told) - MOST_FAULTS} more"
        count = f"{len(fatal)} fault{'s' if len(fatal) > 1 else ''}"
        raise ManifestError(
            f"{source} cannot be used: {count}\n{lines}",
            todo="Mend the rows named; the columns are in manifests/README.md",
        )
    return Cohort(tuple(records), source, tuple(notes))
