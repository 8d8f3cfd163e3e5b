"""What to mark next: the patches the tuned model is least sure of, spread over slides and within each slide."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.run_dir import existing_store
from wsi_pipeline.errors import UsageError, WsiPipelineError
from wsi_pipeline.store.tables.class_table import read_class_table
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.marked_patches import marked_rows
from wsi_pipeline.viewer.marks import Marks

APART = 4
"""Two patches of one slide are at least this many patches apart."""
_LOOKED_AT = 400


def next_to_mark(library: Library, marks: Marks, model: str, count: int) -> list[dict[str, Any]]:
    """Up to `count` patches in order of decreasing `doubt`.

    Patches already labelled by a mark are left out. Raises UsageError if no slide was classified with this model.
    """
    each: list[list[dict[str, Any]]] = []
    for slide_id, record in library.records.items():
        store = existing_store(marks.run.class_store(model, slide_id))
        if store is None:
            continue
        try:
            table = read_class_table(store)
        except WsiPipelineError:
            continue
        side = table.geometry.patch_level0
        doubts = doubt(table.probabilities)
        labelled, _, _ = marked_rows(marks.read(slide_id)["features"], table.coords, side)
        doubts[list(labelled)] = -1
        first = []
        for row in spread_out(doubts, table.coords, APART * side, most=count):
            x, y = (int(value) for value in table.coords[row])
            best = np.argsort(-table.probabilities[row])[:2]
            first.append({
                "id": slide_id, "row": row, "x": x, "y": y, "side": side, "patient": record.patient_id,
                "doubt": round(float(doubts[row]), 4),
                "between": [f"{table.classes[k]} {table.probabilities[row][k]:.2f}" for k in best],
            })  # fmt: skip
        each.append(first)
    if not each:
        raise UsageError(f"no slide is classified by {model[:80]} yet", todo="Tune on your marks first.")
    turns = [item for turn in range(count) for own in each for item in own[turn : turn + 1]]
    return sorted(turns[:count], key=lambda item: -item["doubt"])


def doubt(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 minus the margin between the two most likely classes, (N,), from probabilities (N, C)."""
    if not len(probabilities) or probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    top = np.sort(probabilities.astype(np.float64), axis=1)
    return np.asarray(1 - (top[:, -1] - top[:, -2]))


def spread_out(values: NDArray[np.float64], coords: NDArray[np.int64], apart: int, most: int) -> list[int]:
    """Rows by decreasing value, each at least `apart` level-0 pixels from earlier ones, without negative values."""
    chosen: list[int] = []
    for row in np.argsort(-values, kind="stable")[:_LOOKED_AT].tolist():
        if values[row] < 0 or len(chosen) >= most:
            break
        near = [other for other in chosen if np.abs(coords[row] - coords[other]).max() < apart]
        if not near:
            chosen.append(row)
    return chosen
