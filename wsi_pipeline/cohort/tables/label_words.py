"""Which labels of a table are classes: missing values are dropped, variant spellings reported or merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from wsi_pipeline.cohort.records import Fault, SlideRecord
from wsi_pipeline.cohort.table_words import MISSING_WORDS, alike, is_missing, label_key
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.wording import counted, listed

Numbered = list[tuple[int, SlideRecord]]

MOST_GRADES = 20
"""More distinct numbers than this are measurements, for which `1` and `1.0` are the same value."""


def settle_labels(
    numbered: Numbered, options: TableOptions, before: Sequence[str] | None, *, has_column: bool
) -> tuple[Numbered, dict[str, str], list[Fault]]:
    """Return the records with their final labels, slide_id -> label as written (if different), and notes.

    numbered   row number and record; its label is the cell as written
    before     labels as written, if the records' labels were settled earlier
    has_column   whether the table has the label column, so that rows without a label are worth a note

    Raises UsageError if a label to be kept does not occur.
    """
    raw = [record.label or "" for _, record in numbered] if before is None else list(before)
    kept, fold = set(options.kept_labels), options.fold_labels
    if before is not None:  # earlier decisions still hold
        settled = [(text, record.label) for text, (_, record) in zip(before, numbered, strict=True) if record.label]
        kept |= {text.casefold() for text, _ in settled if is_missing(text)}
        fold = fold or any(text != label for text, label in settled)
    counts = Counter(text for text in raw if text)
    _check_kept(counts, options)
    classes = {name: name for name in counts if not is_missing(name) or name.casefold() in kept}
    faults = _note_words(counts, classes)
    groups = _alike(list(classes), counts)
    if fold:
        classes |= {name: group[0] for group in groups for name in group}
    faults += [Fault(None, _alike_words(group, counts, joined=fold), fatal=False) for group in groups]
    made, written = [], dict[str, str]()
    for text, (row, record) in zip(raw, numbered, strict=True):
        label = classes.get(text)
        if text.lower() not in MISSING_WORDS and (label != text or is_missing(text)):
            written[record.slide_id] = text
        if has_column and text.lower() in MISSING_WORDS and label is None:
            words = f"empty label: {record.slide_id} is tiled and embedded, but not used for training"
            faults.append(Fault(row, words, fatal=False))
        made.append((row, replace(record, label=label)))
    if written or before is not None:
        written = {record.slide_id: text for text, (_, record) in zip(raw, numbered, strict=True) if text}
    return made, written, faults


def _check_kept(counts: Counter[str], options: TableOptions) -> None:
    missing = sorted(options.kept_labels - {name.casefold() for name in counts})
    if missing:
        raise UsageError(
            f"keep_label names {listed([repr(name) for name in missing])}, which no slide has as its label",
            todo=f"Labels are: {listed([repr(name) for name in counts], 20)}",
        )


def _note_words(counts: Counter[str], classes: dict[str, str]) -> list[Fault]:
    """Notes on words for missing values (other than empty cells)."""
    words = [name for name in counts if name not in classes and name.lower() not in MISSING_WORDS]
    return [
        Fault(
            None,
            f"label {name!r} of {counted(counts[name], 'slide')} is treated as missing and not used for training; "
            f"keep it as a class with --keep-label {name!r}",
            fatal=False,
        )
        for name in words
    ]


def _alike(names: Sequence[str], counts: Counter[str]) -> list[tuple[str, ...]]:
    """Labels that differ only in spelling, the most frequent first; none if labels are measurements."""
    if len(names) > MOST_GRADES and all(label_key(name).replace(".", "").lstrip("-").isdecimal() for name in names):
        return []
    return alike(sorted(names, key=lambda name: -counts[name]), label_key)


def _alike_words(group: Sequence[str], counts: Counter[str], *, joined: bool) -> str:
    named = ", ".join(f"{name!r} ({counts[name]})" for name in group)
    if joined:
        return f"labels {named} differ only in spelling: merged as {group[0]!r}"
    return (
        f"labels {named} differ only in spelling and count as {len(group)} classes: correct them or use --fold-labels"
    )
