"""A CSV of labels as columns of text, and which column means what."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.table_words import MISSING_WORDS, split_word
from wsi_pipeline.cohort.tables import cells
from wsi_pipeline.cohort.tables.columns import ALIASES, normalise
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.wording import counted

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})

COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        "path", "image", "image_path", "file", "filename", "file_name", "filepath", "file_path", "img", "patch", "wsi",
        "slide_path", "slide",
    ),
    "label": ("label", "class", "class_name", "category", "target", "diagnosis", "type", "ground_truth"),
    "group": (
        "group", "patient_id", *ALIASES["patient_id"], "tma", "slide_id", "slide",
    ),
    "split": ("split", "set", "partition", "subset"),
    "x": ("x", "x_px", "centre_x", "center_x", "centroid_x", "x_centroid", "cx"),
    "y": ("y", "y_px", "centre_y", "center_y", "centroid_y", "y_centroid", "cy"),
    "annotation": ("annotation", "annotations", "annotation_path", "annotation_file", "geojson"),
}  # fmt: skip
"""Meaning of a column -> its names, the preferred one first."""


@dataclass(frozen=True)
class LabelTable:
    """A CSV as text cells without outer spaces.

    header    names of its columns as written
    rows      a cell for each column, missing ones at the end as empty text
    numbers   number of each row in the spreadsheet; the header is row 1
    columns   our name -> index of the column, for columns that exist
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]
    columns: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self, name: str) -> list[str]:
        """The cells of one of our columns; empty text if there is no such column, and for NA, none, null."""
        if name not in self.columns:
            return [""] * len(self)
        place = self.columns[name]
        return ["" if row[place].lower() in MISSING_WORDS else row[place] for row in self.rows]

    def values(self, name: str) -> NDArray[np.float64]:
        """The cells of one of our columns as float64 (N,), decimal commas allowed; NaN if not a number."""
        return np.array([_number(cell) for cell in self.cells(name)], np.float64)

    def splits(self) -> list[str] | None:
        """train, val or test for each row, None if no row states it. Raises LabelError for other words and gaps."""
        words = self.cells("split")
        if not any(words):
            return None
        found = [split_word(word) or "" for word in words]
        wrong = [row for row, word in enumerate(found) if not word]
        if wrong:
            raise LabelError(
                f"{self.path}: split must be train, val or test in every row or in none, "
                f"got {words[wrong[0]]!r} in row {self.numbers[wrong[0]]} ({len(wrong)} such rows)"
            )
        return found


def read_label_table(path: Path, spec: LabelSpec) -> LabelTable:
    """Read a CSV (commas, semicolons or tabs; UTF-8, with or without a byte-order mark, or Windows-1252).

    Raises LabelError if it is not a table, a row has more cells than the header, or a column that `spec` names is not
    there.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LabelError(f"cannot read {path}: {error.strerror}", todo="Give a CSV or a folder of labels") from None
    found = {place: row for place, row in enumerate(_rows(_decode(raw), path), start=1) if any(row)}
    if not found:
        raise LabelError(f"{path} is not a table: it is empty")
    header = tuple(found.pop(min(found)))
    rows = tuple(_fitted(row, len(header), place, path) for place, row in found.items())
    return LabelTable(path, header, rows, tuple(found), _columns(path, header, spec))


def _rows(text: str, path: Path) -> list[list[str]]:
    """The cells of each row, without outer spaces."""
    first = text.lstrip("\r\n").replace("\r", "\n").split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    try:
        found = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        return [[cell.strip() for cell in row] for row in found]
    except csv.Error as error:  # a cell of more than 131,072 characters
        raise LabelError(f"{path} is not a table: {error}", todo="Look for an unclosed quotation mark") from None


def _fitted(row: list[str], count: int, place: int, path: Path) -> tuple[str, ...]:
    """Cells of a row, as many as in the header: spreadsheets omit empty ones at the end, or write extra ones."""
    if any(row[count:]):
        raise LabelError(
            f"{path}, row {place}: {counted(len(row), 'cell')} where the header has {count} (a stray separator?)",
            todo="Put quotation marks around cells that contain a separator",
        )
    return (*row[:count], *[""] * (count - len(row)))


def _number(cell: str) -> float:
    try:
        return cells.number(cell)
    except ValueError:
        return math.nan


def _decode(raw: bytes) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if raw.startswith(mark):
            return raw.decode(encoding, "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _columns(path: Path, header: Sequence[str], spec: LabelSpec) -> dict[str, int]:
    # Of two columns with the same name the first is used.
    plain = {normalise(name): place for place, name in reversed(list(enumerate(header)))}
    asked = {"label": spec.label_column, "group": spec.group_column}
    found: dict[str, int] = {}
    for ours, names in COLUMNS.items():
        given = asked.get(ours)
        if given is not None and normalise(given) not in plain:
            raise LabelError(f"{path} has no column {given!r}", todo=f"Its columns: {', '.join(header)}")
        hit = next((name for name in ((normalise(given),) if given else names) if name in plain), None)
        if hit is not None:
            found[ours] = plain[hit]
    if found.get("group") == found.get("path"):
        found.pop("group", None)
    return found
