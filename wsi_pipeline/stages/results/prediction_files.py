"""The files of predict/<encoder>/<training>/: reading them, and merging the predictions of several calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pandas as pd

from wsi_pipeline.mil.validation.external import AT_CUT, RISK_GROUP, SEEN
from wsi_pipeline.stages.results.former import keep_former

PREDICTIONS, PATIENTS, METRICS, MODEL = "predictions.csv", "patients.csv", "metrics.json", "model.json"
TEXTS = ("slide_id", "patient_id", "label", "predicted", AT_CUT, RISK_GROUP, "far_from_training", SEEN)
"""Columns that are text; `label` and `predicted` hold numbers where a number is predicted."""

Json = dict[str, Any]


def read_predictions(path: Path | IO[str]) -> pd.DataFrame:
    """Read a table of predictions; empty cells are NaN. Raises OSError, ValueError."""
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), na_values=[""], keep_default_na=False)
    if "predicted" in table and not any(table.columns.str.startswith("p_")):
        table["predicted"] = pd.to_numeric(table["predicted"])
    return table


def read_json(path: Path) -> Json | None:
    """Read a JSON object; None if the file is missing or unreadable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def place_of(plain: Path, fingerprint: str, trained: str) -> tuple[Path, Path | None]:
    """The folder for the predictions of a model, and the folder that earlier ones were moved to, if any.

    plain     the folder under the training's name
    trained   the folder of the trained model

    If another model of the same name was applied before, it keeps the folder, and this model's folder name ends with
    its fingerprint. Predictions from before the same training was repeated move to former/.
    """
    if not (plain / PREDICTIONS).is_file():
        return plain, None
    known = read_json(plain / MODEL) or {}
    if known.get("fingerprint") == fingerprint:
        return plain, None
    if trained and known.get("trained") == trained:
        return plain, keep_former(plain, str(known.get("fingerprint") or ""))
    return plain.with_name(f"{plain.name}-{fingerprint[:8]}"), None


def merged(before: pd.DataFrame | None, now: pd.DataFrame, cohort: pd.DataFrame | None) -> pd.DataFrame:
    """The new rows, and earlier rows of other slides (patients), in the order of the cohort.

    cohort   slide_id (or only patient_id) and the current outcome columns of the cohort: earlier rows get these
             outcomes; rows of slides no longer in the cohort keep theirs and come last
    """
    key = _key(now)
    if before is None or key not in before or _key(before) != key:
        return now
    kept = before[~before[key].astype(str).isin(set(now[key].astype(str)))]
    if cohort is not None and len(kept):
        kept = _with_outcomes(kept, cohort, key)
    # Columns that only one side has (from another version) are empty on the other.
    table = now if kept.empty else pd.concat([now.astype(object), kept.astype(object)], ignore_index=True)
    if cohort is not None:
        place = {str(name): i for i, name in enumerate(cohort[key])}
        table = table.iloc[sorted(range(len(table)), key=lambda i: place.get(str(table[key].iloc[i]), len(place) + i))]
    return table.reset_index(drop=True).infer_objects()


def in_cohort(table: pd.DataFrame, cohort: pd.DataFrame | None) -> pd.DataFrame:
    """The rows of slides (patients) that are in the cohort."""
    if cohort is None:
        return table
    key = _key(table)
    return table[table[key].astype(str).isin(set(cohort[key].astype(str)))].reset_index(drop=True)


def _with_outcomes(rows: pd.DataFrame, cohort: pd.DataFrame, key: str) -> pd.DataFrame:
    today: Mapping[str, int] = {str(name): i for i, name in enumerate(cohort[key])}
    columns = [name for name in ("label", "time", "event") if name in cohort and name in rows]
    found = rows.astype(object).reset_index(drop=True)
    for column in columns:
        values: Sequence[Any] = [
            cohort[column].iloc[today[name]] if (name := str(found[key].iloc[i])) in today else found[column].iloc[i]
            for i in range(len(found))
        ]
        found[column] = pd.Series(values, dtype=object)
    return found


def _key(table: pd.DataFrame) -> str:
    return "slide_id" if "slide_id" in table else "patient_id"
