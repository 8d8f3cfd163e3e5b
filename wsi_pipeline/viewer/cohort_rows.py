"""Rows of the cohort page: each slide's status, labels, predictions and their uncertainty, kept up to date cheaply."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.slide_status import read_status
from wsi_pipeline.errors import UsageError
from wsi_pipeline.files.addresses import is_address
from wsi_pipeline.stages.results.trainings import PREDICTIONS
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.nearest.slide_distances import FRESH_SECONDS, Distances, SlideDistances

Row = dict[str, Any]

SORTS = ("order", "error", "doubt", "spread", "distance", "patches", "id")
"""What the cohort can be sorted by; `order` is that of the manifest."""
MOST_ROWS = 500


@dataclass(frozen=True)
class RowQuery:
    """Which rows are requested. An empty text does not filter. Raises UsageError for an unknown order."""

    sort: str = "order"
    down: bool = False
    training: str = ""
    label: str = ""
    site: str = ""
    fold: str = ""
    state: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise UsageError(f"sort must be one of {', '.join(SORTS)}, got {self.sort[:40]!r}")


class CohortRows:
    """Rows of all slides; files that have not changed on disk are not read again. Thread-safe.

    marks   slide_id -> its number of marks
    """

    def __init__(self, library: Library, marks: Callable[[str], int] = lambda _: 0) -> None:
        self._library, self._marks = library, marks
        self._status: dict[str, tuple[int, Row]] = {}
        self._predicted: dict[Path, tuple[int, dict[str, Row]]] = {}
        self._distances = SlideDistances(library)
        self._recent: tuple[str, float, list[Row]] | None = None
        self._lock = threading.Lock()

    def page(self, asked: RowQuery, offset: int, limit: int) -> dict[str, Any]:
        """`total`, `matched` and the `rows` from `offset` on, at most MOST_ROWS of them, each with its `version`.

        note   which slides have no distance, and why, if they are sorted by it
        """
        away = self._distances_asked(asked)
        total, kept = self._chosen(asked, away.values)
        offset, limit = max(0, offset), min(max(1, limit), MOST_ROWS)
        rows = [{**row, "version": self._version(row["id"])} for row in kept[offset : offset + limit]]
        return {"total": total, "matched": len(kept), "rows": rows, "note": away.note}

    def _version(self, slide_id: str) -> str:
        """Version of a slide's file; empty for a slide elsewhere, which would have to be asked over the network."""
        elsewhere = is_address(self._library.record(slide_id).path)
        return "" if elsewhere else self._library.version(slide_id)

    def around(self, asked: RowQuery, slide_id: str) -> dict[str, str | None]:
        """Ids of the `previous` and the `next` slide in the order asked for, or None.

        From a slide that the filters leave out, `next` is the first slide of the list.
        """
        self._library.record(slide_id)
        names = [row["id"] for row in self._chosen(asked, self._distances_asked(asked).values)[1]]
        at = names.index(slide_id) if slide_id in names else -1
        following = names[at + 1 : at + 2]
        return {"previous": names[at - 1] if at > 0 else None, "next": following[0] if following else None}

    def _chosen(self, asked: RowQuery, away: dict[str, float]) -> tuple[int, list[Row]]:
        """(number of all rows, the matching rows in order); `away` are the distances of slides."""
        with self._lock:
            rows = self._rows(asked.training)
        if away:
            rows = [{**row, "distance": away.get(row["id"])} for row in rows]
        kept = [row for row in rows if _matches(row, asked)]
        if asked.sort != "order":
            key = asked.sort
            there = [row for row in kept if row.get(key) is not None]
            there.sort(key=lambda row: row[key], reverse=asked.down)
            kept = there + [row for row in kept if row.get(key) is None]
        elif asked.down:
            kept.reverse()
        return len(rows), kept

    def _distances_asked(self, asked: RowQuery) -> Distances:
        """Distances from the training slides, if the rows are sorted by them."""
        encoder, _, name = asked.training.partition("/")
        if asked.sort != "distance" or not name or self._library.run is None:
            return Distances()
        return self._distances.of(self._library.run.mil(encoder, name))

    def choices(self) -> dict[str, list[str]]:
        """The values to filter by: labels, sites, folds."""
        records = self._library.cohort.records
        with self._lock:
            folds = {str(row["fold"]) for folder in self._library.trainings() for row in self._of(folder).values()}
        return {
            "labels": sorted({record.label for record in records if record.label is not None}),
            "sites": sorted({record.site for record in records if record.site is not None}),
            "folds": sorted(folds - {"None"}, key=lambda name: (len(name), name)),
        }

    def one(self, slide_id: str, training: str = "") -> Row:
        """The row of one slide."""
        with self._lock:
            return self._row(self._library.record(slide_id), training)

    def _rows(self, training: str) -> list[Row]:
        """The rows of all slides; recent ones are reused, for example for the next page."""
        known = self._recent
        if known is None or known[0] != training or time.monotonic() - known[1] > FRESH_SECONDS:
            rows = [self._row(record, training) for record in self._library.records.values()]
            known = self._recent = (training, time.monotonic(), rows)
        return known[2]

    def _row(self, record: SlideRecord, training: str) -> Row:
        row = {**self._state(record), "marks": self._marks(record.slide_id)}
        if training and self._library.run:
            encoder, _, name = training.partition("/")
            row |= self._of(self._library.run.mil(encoder, name)).get(record.slide_id, {})
        return row

    def _state(self, record: SlideRecord) -> Row:
        base = {
            "id": record.slide_id, "patient": record.patient_id, "label": record.label, "site": record.site,
            "split": record.split, "state": "pending", "note": "", "patches": None, "tissue_mm2": None,
            "mpp": record.mpp,
        }  # fmt: skip
        if self._library.run is None:
            return base
        path = self._library.run.status(record.slide_id)
        mark = _mark(path)
        known = self._status.get(record.slide_id)
        if known is None or known[0] != mark:
            status = read_status(path, record.slide_id)
            measured = {key: value for stage in status.stages.values() for key, value in stage.summary.items()}
            state = (
                "failed" if status.failed else list(status.stages.values())[-1].state if status.stages else "pending"
            )
            notes = [stage.reason or stage.note for stage in status.stages.values() if stage.reason or stage.note]
            base |= {key: measured[key] for key in ("patches", "tissue_mm2", "mpp") if key in measured}
            known = mark, {**base, "state": state, "note": "; ".join(dict.fromkeys(notes))}
            self._status[record.slide_id] = known
        return known[1]

    def _of(self, folder: Path) -> dict[str, Row]:
        """Predictions of a training, by slide."""
        path = folder / PREDICTIONS
        mark = _mark(path)
        known = self._predicted.get(folder)
        if known is None or known[0] != mark:
            known = mark, predicted_rows(path, self._library.patients)
            self._predicted[folder] = known
        return known[1]


def predicted_rows(path: Path, patients: dict[str, str]) -> dict[str, Row]:
    """Predictions of each slide from a predictions.csv, averaged over repeats. Rows per patient apply to all slides.

    predicted, p (of the predicted class), error (1 - p of the true class, or the difference of numbers), doubt (1 minus
    the margin between the two most likely classes), spread (standard deviation over repeats or models), fold.
    """
    try:
        table = pd.read_csv(path, dtype={"slide_id": str, "patient_id": str, "label": str}, keep_default_na=False)
    except (OSError, ValueError):
        return {}
    if "slide_id" in table:
        return {str(key): _predicted(rows) for key, rows in table.groupby("slide_id", sort=False)}
    if "patient_id" not in table:
        return {}
    found = {str(key): _predicted(rows) for key, rows in table.groupby("patient_id", sort=False)}
    return {slide: found[patient] for slide, patient in patients.items() if patient in found}


def _predicted(rows: pd.DataFrame) -> Row:
    classes = [str(name)[2:] for name in rows if str(name).startswith("p_")]
    found: Row = {"fold": ", ".join(dict.fromkeys(map(str, rows["fold"]))) if "fold" in rows else None}
    label = str(rows["label"].iloc[0]) if "label" in rows else ""
    if classes:
        values = rows[[f"p_{name}" for name in classes]].to_numpy(np.float64)
        mean = values.mean(axis=0)
        order = np.argsort(-mean)
        first = int(order[0])
        lead = mean[first] - mean[order[1]] if len(order) > 1 else 1.0
        found |= {
            "predicted": classes[first], "p": round(float(mean[first]), 4), "doubt": round(float(1 - lead), 4),
            "spread": round(float(values[:, first].std()), 4) if len(values) > 1 else None,
            "probabilities": {name: round(float(value), 4) for name, value in zip(classes, mean, strict=True)},
            "error": round(float(1 - mean[classes.index(label)]), 4) if label in classes else None,
        }  # fmt: skip
    elif "predicted" in rows:
        numbers = pd.to_numeric(rows["predicted"], errors="coerce").to_numpy(np.float64)
        truth = pd.to_numeric(rows["label"], errors="coerce").to_numpy(np.float64)[0] if "label" in rows else np.nan
        found |= {"predicted": round(float(numbers.mean()), 4)}
        found["spread"] = round(float(numbers.std()), 4) if len(numbers) > 1 else None
        found["error"] = round(float(abs(numbers.mean() - truth)), 4) if np.isfinite(truth) else None
    if "spread" in rows:
        found["spread"] = round(float(pd.to_numeric(rows["spread"], errors="coerce").mean()), 4)
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in found.items()}


def _matches(row: Row, asked: RowQuery) -> bool:
    if asked.label and row["label"] != asked.label:
        return False
    if asked.site and row["site"] != asked.site:
        return False
    if asked.state == "wrong" and not ("predicted" in row and row["label"] not in (None, str(row["predicted"]))):
        return False
    if asked.state == "marked" and not row["marks"]:
        return False
    if asked.state not in ("", "wrong", "marked") and row["state"] != asked.state:
        return False
    if asked.fold and asked.fold not in str(row.get("fold") or "").split(", "):
        return False
    words = " ".join(str(row.get(key) or "") for key in ("id", "patient", "label", "site", "note")).casefold()
    return asked.text.casefold() in words


def _mark(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
