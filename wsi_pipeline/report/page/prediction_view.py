"""Data of the report's section on predictions of new slides: numbers, and which slides are out of distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from wsi_pipeline.report.data import ModelSection, PredictionSection, as_number
from wsi_pipeline.report.page.model_view import measured_view

MOST_ROWS = 1000
_FLAGS = ("yes", "no", "unknown")
_NUMBERS = ("risk", "spread", "novelty")


def prediction_views(sections: Sequence[PredictionSection]) -> list[dict[str, Any]]:
    """One view per trained model: its table, with out-of-distribution slides first."""
    return [_view(section) for section in sections]


def _view(section: PredictionSection) -> dict[str, Any]:
    table = section.table
    flags = table["far_from_training"].astype(str) if "far_from_training" in table else pd.Series("", index=table.index)
    order = sorted(table.index, key=lambda i: flags[i] != "yes")
    rows = [_row(table.loc[i], flags[i]) for i in order[:MOST_ROWS]]
    known = {name for name in _NUMBERS if name in table}
    return {
        "name": section.name,
        "measured": _measured(section),
        "warnings": _warnings(section),
        "called": "predicted_at_cut" in table or "risk_group" in table,
        "labelled": "label" in table and bool(table["label"].notna().any()),
        "unit": section.unit,
        "rows": rows,
        "known": known,
        "flagged": bool((flags != "").any()),
        "unknown_flags": bool((flags == "unknown").any()),
        "probable": any(row["probability"] is not None for row in rows),
        "left_out": len(table) - len(rows),
    }


def _measured(section: PredictionSection) -> list[dict[str, Any]]:
    """Performance by slide and, if patients have several slides, by patient."""
    metrics = section.metrics
    title = "External test" if metrics.get("external") else "Not an external test"
    views = []
    parts = ((f"{title}, by {section.unit}", metrics, section.table),
             (f"{title}, by patient", metrics.get("by_patient") or {}, section.patients))  # fmt: skip
    for words, own, table in parts:
        if own.get("pooled"):
            encoder, _, name = section.name.partition("/")
            rows = None if table is None else _tested(table, own)
            views.append({"title": words, **measured_view(ModelSection(encoder, name, own, rows))})
    return views


def _tested(table: pd.DataFrame, metrics: Mapping[str, Any]) -> pd.DataFrame:
    """The rows on which the metrics were computed."""
    key = "slide_id" if "slide_id" in table else "patient_id"
    rows = table[~table[key].astype(str).isin(set(metrics.get("left_out") or ()))]
    return rows.reset_index(drop=True)


def _warnings(section: PredictionSection) -> list[str]:
    own = (section.metrics.get("by_patient") or {}).get("warnings") or ()
    return list(dict.fromkeys([*(section.metrics.get("warnings") or ()), *own]))


def _row(row: pd.Series[Any], flag: str) -> dict[str, Any]:
    predicted = row.get("predicted")
    words = predicted if isinstance(predicted, str) or predicted is None else f"{predicted:.4g}"
    probability = as_number(row.get(f"p_{predicted}")) if isinstance(predicted, str) else None
    return {
        "slide_id": str(row.get("slide_id", row.get("patient_id"))),
        "predicted": words,
        "probability": probability,
        "call": row.get("predicted_at_cut", row.get("risk_group")),
        "label": row.get("label"),
        **{name: as_number(row.get(name)) for name in _NUMBERS},
        "flag": flag if flag in _FLAGS else "",
        "far": flag == "yes",
    }
