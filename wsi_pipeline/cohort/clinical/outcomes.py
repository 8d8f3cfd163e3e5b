"""The outcome that a clinical table gives each slide: a label, or time and event, by the rules of the slide table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from wsi_pipeline.cohort.clinical.endpoints import endpoint_columns
from wsi_pipeline.cohort.clinical.join import Joined, label_columns
from wsi_pipeline.cohort.clinical.targets import SURVIVAL, Target
from wsi_pipeline.cohort.records import Fault, SlideRecord
from wsi_pipeline.cohort.table_words import is_missing, label_key
from wsi_pipeline.cohort.tables import cells
from wsi_pipeline.cohort.tables.label_words import settle_labels
from wsi_pipeline.cohort.tables.manifest_table import Table
from wsi_pipeline.cohort.tables.table_checks import check_texts
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.errors import ManifestError, UsageError
from wsi_pipeline.wording import counted, listed

_MOST_FAULTS = 50


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The slides with the outcome of one target instead of the outcome in their own table.

    target    the target, with its column filled in if it was open
    columns   `label`, or `time` and `event` -> the columns they were read from, several joined by ` + `
    """

    target: Target
    records: tuple[SlideRecord, ...]
    columns: dict[str, str]
    notes: tuple[str, ...]


def with_outcome(
    joined: Joined, records: Sequence[SlideRecord], target: Target, options: TableOptions | None = None
) -> Outcomes:
    """The joined `records` with the outcome of `target`; slides without a row have no outcome.

    options   how labels are read (`keep_label`, `fold_labels`)

    Raises UsageError if a column does not exist. Raises ManifestError that lists every cell that cannot be used and
    every patient whose rows contradict each other.
    """
    if target.task == SURVIVAL:
        return _survival(joined, records, target)
    return _labels(joined, records, target, options or TableOptions())


def _labels(joined: Joined, records: Sequence[SlideRecord], target: Target, options: TableOptions) -> Outcomes:
    table = joined.table
    if not target.column:
        target = replace(target, column=_only_label_column(joined))
    place = table.place_of(target.column, "--target")
    name = table.header[place]
    if place == joined.column:
        raise UsageError(f"{name!r} names the {joined.unit}s of {table.name}: it cannot be the target as well")
    raw = table.column(place)
    texts = ["" if is_missing(cell) and cell.casefold() not in options.kept_labels else cell for cell in raw]
    faults: list[Fault] = []
    numbered: list[tuple[int, SlideRecord]] = []
    for record, rows in zip(records, joined.rows, strict=True):
        numbers = [table.rows[row][0] for row in rows]
        faults += [
            Fault(row, f"{name!r} {table.troubles[row, place]}") for row in numbers if (row, place) in table.troubles
        ]
        agreed = _agreed(joined, rows, texts, name, faults, label_key)
        row = agreed if agreed is not None else next(iter(rows), None)
        label = raw[row] or None if row is not None else None
        number = table.rows[row][0] if row is not None else 0
        numbered.append((number, replace(record, label=label, time=None, event=None)))
    faults += check_texts([(row, replace(record, patient_id=record.slide_id)) for row, record in numbered if row])
    _refuse(joined, faults)
    made, _, notes = settle_labels(numbered, _found_options(options, numbered), None, has_column=False)
    return Outcomes(
        replace(target, column=name), tuple(record for _, record in made), {"label": name},
        tuple(dict.fromkeys(note.message for note in notes)),
    )  # fmt: skip


def _found_options(options: TableOptions, numbered: Sequence[tuple[int, SlideRecord]]) -> TableOptions:
    """Keep only the words of `keep_label` that occur in this target: another target may have the others."""
    found = {record.label.casefold() for _, record in numbered if record.label}
    kept = [word for word in sorted(options.kept_labels) if word in found]
    return replace(options, keep_label=",".join(kept) or None, patient_column=None, each_slide_a_patient=False)


def _only_label_column(joined: Joined) -> str:
    found = label_columns(joined.table)
    if len(found) == 1:
        return found[0]
    named = listed([repr(name) for name in joined.table.header if name], 20)
    what = f"{len(found)} columns that may be the target ({listed(map(repr, found))})" if found else "no column `label`"
    raise UsageError(f"{joined.table.name} has {what}", todo=f"Name it with --target. Its columns: {named}")


def _survival(joined: Joined, records: Sequence[SlideRecord], target: Target) -> Outcomes:
    table = joined.table
    body = [cells_ for _, cells_ in table.rows]
    found, columns = endpoint_columns(table.name, table.header, body, target.column)
    own = Table(table.header, body, columns)
    texts = {name: [cell.strip() for cell in own.cells(name)] for name in ("time", "event")}
    faults: list[Fault] = []
    made = []
    short: list[str] = []
    for record, rows in zip(records, joined.rows, strict=True):
        values: dict[str, float | int | None] = {}
        for name, parse in (("time", cells.time), ("event", cells.event)):
            shown = f"{name} of {record.patient_id}"
            row = _agreed(joined, rows, texts[name], name, faults, partial(_parsed_if_possible, parse))
            values[name] = None if row is None else _parsed(table.rows[row][0], shown, texts[name][row], parse, faults)
        time = values["time"]
        if time is not None and time <= 0:
            short.append(record.patient_id)
            values["time"] = None
        made.append(replace(record, label=None, time=values["time"], event=values["event"]))  # type: ignore[arg-type]
    _refuse(joined, faults)
    notes = list(columns.notes)
    if short:
        short = list(dict.fromkeys(short))
        notes.append(f"{counted(len(short), 'patient')} with a time of 0 or less not used ({listed(short)})")
    target = replace(target, column=target.column or columns.survival.endpoint.upper())
    return Outcomes(target, tuple(made), found, tuple(notes))


def _parsed_if_possible(parse: Callable[[str], float], text: str) -> object:
    """The value of a cell for comparisons, where `1` and `1.0` are equal; the text if it cannot be parsed."""
    try:
        return parse(text)
    except ValueError:
        return text


def _parsed(row: int, what: str, text: str, parse: Callable[[str], float], faults: list[Fault]) -> float | int | None:
    try:
        return parse(text)
    except ValueError as error:
        faults.append(Fault(row, f"{what} {error}"))
        return None


def _agreed(
    joined: Joined,
    rows: Sequence[int],
    texts: Sequence[str],
    what: str,
    faults: list[Fault],
    key: Callable[[str], object],
) -> int | None:
    """The first row with a value; a fault if another row has a different value."""
    known = [row for row in rows if texts[row]]
    for row in known[1:]:
        if key(texts[row]) != key(texts[known[0]]):
            first = joined.table.rows[known[0]][0]
            whose = joined.table.column(joined.column)[row]
            faults.append(
                Fault(
                    joined.table.rows[row][0],
                    f"{joined.unit} {whose!r} has two values of {what!r}: {texts[known[0]]!r} (row {first}), "
                    f"{texts[row]!r}",
                )
            )
            break
    return known[0] if known else None


def _refuse(joined: Joined, faults: Sequence[Fault]) -> None:
    """Raise ManifestError for any fault, each listed once, however many slides a patient has."""
    lines = list(dict.fromkeys(str(fault) for fault in sorted(faults, key=lambda fault: fault.row or 0)))
    if lines:
        shown = listed(lines, _MOST_FAULTS, "\n  ")
        raise ManifestError(
            f"{joined.table.name} cannot be used: {counted(len(lines), 'fault')}\n  {shown}",
            todo="Correct these rows, or leave the cells empty",
        )
