"""Predictions of another program, from a CSV or Excel table, as one side of a comparison with ours.

Outcomes, patients and slides are ours; the table gives a prediction for each slide or patient. Rows that only one side
has are left out, with a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.clinical.clinical_table import ClinicalTable, read_clinical
from wsi_pipeline.cohort.clinical.join import Joined, join
from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.table_words import is_missing, label_key
from wsi_pipeline.cohort.tables import cells
from wsi_pipeline.cohort.tables.columns import ALIASES, normalise
from wsi_pipeline.cohort.tables.workbook import WORKBOOKS, split_sheet
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.ordinal import median_grade
from wsi_pipeline.mil.tasks.survival import CoxTask
from wsi_pipeline.mil.tasks.task import Task
from wsi_pipeline.stages.outputs.class_columns import class_columns, numbered_classes
from wsi_pipeline.stages.outputs.predicted_side import NOTES, per_patient
from wsi_pipeline.stages.results.trainings import Training
from wsi_pipeline.wording import counted, listed

FOREIGN = "foreign_task"
"""Key of such a side's metrics: its task, as JSON."""
_NUMBERS = {
    "regression": ("predicted", "prediction", "pred", "value", "y_pred", "y_hat", "predicted_value", "score"),
    "survival": ("risk", "risk_score", "risk_scores", "log_risk", "hazard", "log_hazard", "score", "prediction", "pred",
                 "predicted"),
}  # fmt: skip
_TRUTH = ("label", *ALIASES["label"], "y_true", "true_label", "truth")
_TABLES = (".csv", ".tsv", ".txt", *WORKBOOKS)

Floats = NDArray[np.float64]


def is_table(path: Path) -> bool:
    """Whether a path is a table rather than one of our folders."""
    file = split_sheet(str(path))[0]
    return file.suffix.lower() in _TABLES and not path.is_dir()


def beside(ours: Training, task: Task, source: str) -> tuple[Training, Training]:
    """Our predictions and those of a table, for the rows that both have; by patient if the table's rows are patients.

    ours   our predictions, which hold the outcomes; `task` is what they predict

    Raises MilError if the table lacks the prediction, has two rows for one slide or patient, or contradicts our
    outcomes; ManifestError if no id matches.
    """
    table = read_clinical(source)
    joined = _joined(table, ours.predictions)
    if joined.unit == "patient" and "slide_id" in ours.predictions:
        ours = per_patient(ours, task)
    key = "slide_id" if "slide_id" in ours.predictions else "patient_id"
    names = ours.predictions[key].astype(str)
    row_of = _rows(joined, _records(ours.predictions), key)
    named, by_number = _with_class_names(table, task, ours.predictions, key, row_of)
    values, remarks = _predictions(named, task)
    known = {name: row for name, row in row_of.items() if np.isfinite(values.to_numpy(np.float64)[row]).all()}
    ours = replace(ours, predictions=ours.predictions[names.isin(known)].reset_index(drop=True))
    if ours.predictions.empty:
        raise MilError(f"{table.name} has no prediction for any {joined.unit} of {ours.folder}")
    first = ours.predictions
    if "repeat" in first:
        first = first[first["repeat"] == first["repeat"].min()].reset_index(drop=True)
    rows = [known[name] for name in first[key].astype(str)]
    _check_truth(table, task, first, rows, key, ours)
    own = [name for name in ("slide_id", "patient_id", *task.columns) if name in first]
    theirs = first[own].assign(repeat=0, fold=first["fold"] if task.relative and "fold" in first else 0)
    theirs = theirs.join(_as_predicted(values.iloc[rows].reset_index(drop=True), task))
    # Another program's risk comes without a survival curve, so only its ranking is compared.
    kind = CoxTask() if task.name == "survival" else task
    n_theirs = len({cell for cell in table.column(joined.column) if not is_missing(cell)})
    dropped = (names.nunique() - len(first), n_theirs - len(first))
    notes = [
        f"{Path(table.name).name}: {joined.summary}",
        f"compared on {counted(len(first), joined.unit)} that both have; left out: {dropped[0]} of {ours.folder}, "
        f"{dropped[1]} of {table.name}",
        *joined.notes, *by_number, *remarks,
        f"{table.name}: check that its models were not trained on these patients, which cannot be seen here",
    ]  # fmt: skip
    metrics = {FOREIGN: kind.to_json(), NOTES: notes}
    return ours, Training(Path(source), metrics, theirs, [], fresh=True)


def _records(predictions: pd.DataFrame) -> list[SlideRecord]:
    key = "slide_id" if "slide_id" in predictions else "patient_id"
    once = predictions.drop_duplicates(key)
    pairs = zip(once[key].astype(str), once["patient_id"].astype(str), strict=True)
    return [SlideRecord(name, Path(name), patient) for name, patient in pairs]


def _joined(table: ClinicalTable, predictions: pd.DataFrame) -> Joined:
    return join(table, _records(predictions), by_slide="slide_id" in predictions)


def _rows(joined: Joined, records: Sequence[SlideRecord], key: str) -> dict[str, int]:
    """The table's row for each of our rows that it contains."""
    if joined.unit == "patient" and key == "patient_id":
        joined = join(joined.table, records, joined.table.header[joined.column])
    names = [record.slide_id for record in records]
    twice = [name for name, rows in zip(names, joined.rows, strict=True) if len(rows) > 1]
    if twice:
        raise MilError(
            f"{joined.table.name} has several rows for {counted(len(twice), joined.unit)}: {listed(twice)}",
            todo=f"Keep one prediction per {joined.unit}, e.g. the mean of the folds",
        )
    return {name: rows[0] for name, rows in zip(names, joined.rows, strict=True) if rows}


def _predictions(table: ClinicalTable, task: Task) -> tuple[pd.DataFrame, list[str]]:
    """The numbers of each row: one column per class, or `predicted`, or `risk`; NaN for an empty cell."""
    if not task.classes:
        places = [k for k, name in enumerate(table.header) if normalise(name) in _NUMBERS[task.name]]
        exact = [k for k in places if normalise(table.header[k]) == _NUMBERS[task.name][0]]
        if len(exact or places) != 1:
            raise MilError(
                f"{table.name} has {len(places) or 'no'} columns that may be the {_NUMBERS[task.name][0]}: "
                f"{listed(map(repr, (table.header[k] for k in places) if places else table.header), 20)}",
                todo=f"Name one column {_NUMBERS[task.name][0]}"
                + (" (higher: earlier event)" if task.name == "survival" else ""),
            )
        place = (exact or places)[0]
        name = "risk" if task.name == "survival" else "predicted"
        return pd.DataFrame({name: _numbers(table, place)}), [f"{table.header[place]!r} is taken as the {name}"]
    found = class_columns(table.header, task.classes, table.name)
    values = {name: _numbers(table, place) for name, place in found.places.items()}
    for name, column in values.items():
        off = np.flatnonzero((column < -1e-9) | (column > 1 + 1e-6))
        if len(off):
            raise MilError(
                f"{table.name}, row {table.rows[off[0]][0]}: {table.header[found.places[name]]!r} is "
                f"{column[off[0]]:g}, a probability lies between 0 and 1",
                todo="Turn logits into probabilities (softmax), or percent into fractions",
            )
    remarks = []
    if found.assumed:
        (name, place) = next(iter(found.places.items()))
        remarks.append(f"{table.header[place]!r} is taken as the probability of {name}")
    if len(values) < len(task.classes):
        values |= {name: 1 - next(iter(values.values())) for name in task.classes if name not in values}
    frame = pd.DataFrame({f"p_{name}": values[name] for name in task.classes})
    odd = np.abs(frame.sum(axis=1) - 1) > 0.02
    if (odd & frame.notna().all(axis=1)).any():
        remarks.append(f"probabilities of {counted(int(odd.sum()), 'row')} do not add up to 1: used as they are")
    return frame, remarks


def _with_class_names(
    table: ClinicalTable, task: Task, predictions: pd.DataFrame, key: str, row_of: Mapping[str, int]
) -> tuple[ClinicalTable, list[str]]:
    """The table with the columns `p_0`, `p_1` of CLAM named by class, if its column `Y` identifies the classes."""
    codes = next((k for k, name in enumerate(table.header) if normalise(name) == "y"), None)
    if not task.classes or codes is None:
        return table, []
    label_of = dict(zip(predictions[key].astype(str), predictions["label"].astype(str), strict=True))
    column, both = table.column(codes), [name for name in label_of if name in row_of]
    found = numbered_classes(
        table.header, task.classes, [column[row_of[name]] for name in both], [label_of[name] for name in both]
    )
    if found is None:
        return table, []
    names = {f"p_{number}": f"p_{label}" for number, label in found.items()}
    named = ", ".join(f"p_{number} is the probability of {label}" for number, label in sorted(found.items()))
    header = tuple(names.get(normalise(name), name) for name in table.header)
    return replace(table, header=header), [f"{named}, judged by the column 'Y' and our labels"]


def _as_predicted(values: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The columns of a prediction; for classes, the task's rule derives `predicted` from the probabilities."""
    if not task.classes:
        return values
    numbers = values.to_numpy(np.float64)
    codes = median_grade(numbers) if task.name == "ordinal" else numbers.argmax(1)
    return values.assign(predicted=[task.classes[code] for code in codes])


def _numbers(table: ClinicalTable, place: int) -> Floats:
    found = []
    for (row, _), cell in zip(table.rows, table.column(place), strict=True):
        try:
            found.append(np.nan if is_missing(cell) else cells.number(cell))
        except ValueError as error:
            raise MilError(f"{table.name}, row {row}: {table.header[place]!r} {error}") from None
    return np.array(found, np.float64)


def _check_truth(
    table: ClinicalTable, task: Task, first: pd.DataFrame, rows: Sequence[int], key: str, ours: Training
) -> None:
    """Raise MilError if the table has labels of the same classes and they contradict ours."""
    wanted = {*_TRUTH, normalise(str(ours.metrics.get("label_column") or "label"))}
    known = {label_key(name) for name in task.classes}
    for place, name in enumerate(table.header):
        column = table.column(place)
        labels = [label_key(column[row]) for row in rows]
        if normalise(name) not in wanted or not known or not set(labels) - {""} <= known:
            continue
        own = [label_key(str(label)) for label in first["label"]]
        differs = [k for k, (one, other) in enumerate(zip(own, labels, strict=True)) if other and one != other]
        if differs:
            k = differs[0]
            raise MilError(
                f"{name!r} of {table.name} differs from our label for {len(differs)} of {len(rows)}: "
                f"{first[key].iloc[k]} is {column[rows[k]]} there and {first['label'].iloc[k]} here",
                todo="Compare predictions of the same outcome",
            )
