"""A CSV of labels as columns of text, and which column means what."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.columns import normalise
from wsi_pipeline.cohort.manifest import MISSING_WORDS
from wsi_pipeline.errors import LabelError
from wsi_pipeline.specs import LabelSpec

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt"})

COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        "path", "image", "image_path", "file", "filename", "file_name", "filepath", "file_path", "img", "patch", "wsi",
        "slide_path", "slide",
    ),
    "label": ("label", "class", "class_name", "category", "target", "diagnosis", "type", "ground_truth"),
    "group": (
        "group", "patient_id", "patient", "patientid", "case_id", "case", "donor", "subject", "subject_id", "tma",
        "slide_id", "slide",
    ),
    "split": ("split", "set", "partition", "subset"),
    "x": ("x", "x_px", "centre_x", "center_x", "centroid_x", "x_centroid", "cx"),
    "y": ("y", "y_px", "centre_y", "center_y", "centroid_y", "y_centroid", "cy"),
    "annotation": ("annotation", "annotations", "annotation_path", "annotation_file", "geojson"),
}  # fmt: skip
"""What a column means -> its names, the one that is preferred first."""

SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class LabelTable:
    """A CSV as text cells without outer spaces; row i of the frame is row i + 2 of the spreadsheet.

    columns   our name -> column of the frame; those that are not there are missing
    """

    path: Path
    frame: pd.DataFrame
    columns: dict[str, str]

    def __len__(self) -> int:
        return len(self.frame)

    def cells(self, name: str) -> list[str]:
        """The cells of one of our columns; empty text where there is no such column, or for NA, none, null."""
        if name not in self.columns:
            return [""] * len(self)
        return ["" if cell.lower() in MISSING_WORDS else cell for cell in self.frame[self.columns[name]]]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The cells of one of our columns as float64 (N,); NaN for what is no number."""
        return np.asarray(pd.to_numeric(self.frame[self.columns[name]], errors="coerce"), np.float64)

    def splits(self) -> list[str] | None:
        """train, val or test for each row, None where no row says. Raises LabelError for other words and gaps."""
        words = self.cells("split")
        if not any(words):
            return None
        found = [SPLIT_WORDS.get(word.lower(), "") for word in words]
        wrong = [row for row, word in enumerate(found) if not word]
        if wrong:
            raise LabelError(
                f"{self.path}: split must be train, val or test in every row or in none, "
                f"got {words[wrong[0]]!r} in row {wrong[0] + 2} ({len(wrong)} such rows)"
            )
        return found


def read_label_table(path: Path, spec: LabelSpec) -> LabelTable:
    """Read a CSV (commas, semicolons or tabs; UTF-8, with or without a mark, or Windows-1252).

    Raises LabelError where it is no table, or lacks a column that `spec` names.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LabelError(f"cannot read {path}: {error.strerror}", todo="Name a CSV or a folder of labels") from None
    text = _decode(raw)
    header = text.split("\n", 1)[0]
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=max(",;\t", key=header.count), dtype=str, keep_default_na=False,
            skipinitialspace=True, index_col=False, quoting=csv.QUOTE_MINIMAL,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise LabelError(f"{path} is no table: {error}") from None
    frame = frame.fillna("").apply(lambda column: column.str.strip())
    return LabelTable(path, frame, _columns(path, list(frame.columns), spec))


def _decode(raw: bytes) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if raw.startswith(mark):
            return raw.decode(encoding, "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _columns(path: Path, header: list[str], spec: LabelSpec) -> dict[str, str]:
    plain = {normalise(str(name)): name for name in reversed(header)}
    asked = {"label": spec.label_column, "group": spec.group_column}
    found: dict[str, str] = {}
    for ours, names in COLUMNS.items():
        given = asked.get(ours)
        if given is not None and normalise(given) not in plain:
            raise LabelError(f"{path} has no column {given!r}", todo=f"Its columns: {', '.join(map(str, header))}")
        hit = next((name for name in ((normalise(given),) if given else names) if name in plain), None)
        if hit is not None:
            found[ours] = plain[hit]
    if found.get("group") == found.get("path"):
        found.pop("group", None)
    return found
