"""Text of a CSV as rows of cells, whatever its encoding and separator."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from wsi_pipeline.cohort.records import Fault
from wsi_pipeline.errors import ManifestError, UsageError

_SEPARATOR_LINE = re.compile(r"\s*\"?sep=([,;\t|])\"?[,;\t| ]*(?:\r\n?|\n)", re.IGNORECASE)


def read_rows(path: Path) -> tuple[list[list[str]], list[Fault]]:
    """The rows of a CSV, the header first, and notes on how it was read.

    A first line `sep=;`, which Excel writes and reads, sets the separator and is not a row.

    Raises UsageError for a file that cannot be read, ManifestError for one that is not a CSV.
    """
    text, notes = _decode(path)
    stated = _SEPARATOR_LINE.match(text)
    if stated:
        text = text[stated.end() :]
        words = f"the line before it, {stated[0].strip()!r}, sets the separator and is not a row"
        notes.append(Fault(1, words, fatal=False))
        return _rows(text, stated[1], path), notes
    return _rows(text, _delimiter(text, notes), path), notes


def _rows(text: str, delimiter: str, path: Path) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:  # a cell of more than 131,072 characters: an unclosed quotation mark, or no CSV
        raise ManifestError(
            f"{path} is not a readable CSV: {error}", todo="Look for an unclosed quotation mark"
        ) from None


def _decode(path: Path) -> tuple[str, list[Fault]]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", todo="Give a CSV, a folder of slides, or a glob"
        ) from None
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if raw.startswith(mark):
            return raw.decode(encoding, "replace"), [Fault(1, f"byte-order mark ({encoding}) skipped", fatal=False)]
    if unmarked := _utf16_without_mark(raw):
        return raw.decode(unmarked, "replace"), [Fault(None, "read as UTF-16 without a byte-order mark", fatal=False)]
    try:
        return raw.decode("utf-8"), []
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), [Fault(None, "not UTF-8: read as Windows-1252", fatal=False)]


def _utf16_without_mark(raw: bytes) -> str | None:
    """The UTF-16 encoding if every second byte is null, as in plain text without a byte-order mark; else None."""
    head = raw[: min(len(raw), 200) // 2 * 2]
    for encoding, nulls, letters in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if nulls and not any(nulls) and all(letters):
            return encoding
    return None


def _delimiter(text: str, notes: list[Fault]) -> str:
    header = text.replace("\r", "\n").split("\n", 1)[0]
    best = max(",;\t", key=header.count)
    if best != "," and header.count(best):
        name = {";": "semicolon", "\t": "tab"}[best]
        notes.append(Fault(1, f"the separator is the {name}, not the comma", fatal=False))
        return best
    return ","
