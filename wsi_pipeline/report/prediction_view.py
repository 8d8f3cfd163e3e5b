"""What the report's section on predictions of new slides shows: numbers, and which slides are unlike the training's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from wsi_pipeline.report.data import PredictionSection, as_number

MOST_ROWS = 1000
_FLAGS = {"yes": "far", "no": "near", "unknown": "cannot tell"}
_NUMBERS = ("risk", "spread", "novelty")


def prediction_views(sections: Sequence[PredictionSection]) -> list[dict[str, Any]]:
    """One view per trained model: its table, slides far from training first."""
    return [_view(section) for section in sections]


def _view(section: PredictionSection) -> dict[str, Any]:
    table = section.table
    flags = table["far_from_training"].astype(str) if "far_from_training" in table else pd.Series("", index=table.index)
    order = sorted(table.index, key=lambda i: flags[i] != "yes")
    told = [_row(table.loc[i], flags[i]) for i in order[:MOST_ROWS]]
    known = {name for name in _NUMBERS if name in table}
    return {
        "name": section.name,
        "unit": section.unit,
        "rows": told,
        "known": known,
        "flagged": bool((flags != "").any()),
        "untold": bool((flags == "unknown").any()),
        "probable": any(row["probability"] is not None for row in told),
        "left_out": len(table) - len(told),
    }


def _row(row: pd.Series[Any], flag: str) -> dict[str, Any]:
    predicted = row.get("predicted")
    words = predicted if isinstance(predicted, str) or predicted is None else f"{predicted:.4g}"
    probability = as_number(row.get(f"p_{predicted}")) if isinstance(predicted, str) else None
    return {
        "slide_id": str(row.get("slide_id", row.get("patient_id"))),
        "predicted": words,
        "probability": probability,
        **{name: as_number(row.get(name)) for name in _NUMBERS},
        "flag": _FLAGS.get(flag, ""),
        "far": flag == "yes",
    }
