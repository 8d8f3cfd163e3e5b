"""What to mark next: the patches the tuned model is least sure of, spread over slides and within each slide."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsi_pipeline.cohort.run_dir import existing_store
from wsi_pipeline.errors import UsageError, WsiPipelineError
from wsi_pipeline.stages.results.least_sure import SlidePatchClasses, least_sure
from wsi_pipeline.store.tables.class_table import ClassTable, read_class_table
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.marked_patches import marked_rows
from wsi_pipeline.viewer.marks import Marks


def next_to_mark(library: Library, marks: Marks, model: str, count: int) -> list[dict[str, Any]]:
    """Up to `count` patches in order of decreasing `doubt`.

    Patches already labelled by a mark are left out. Raises UsageError if no slide was classified with this model.
    """
    found: list[tuple[str, str, ClassTable]] = []
    slides: list[SlidePatchClasses] = []
    for slide_id, record in library.records.items():
        store = existing_store(marks.run.class_store(model, slide_id))
        if store is None:
            continue
        try:
            table = read_class_table(store)
        except WsiPipelineError:
            continue
        side = table.geometry.patch_level0
        labelled, _, _ = marked_rows(marks.read(slide_id)["features"], table.coords, side)
        found.append((slide_id, record.patient_id, table))
        slides.append(SlidePatchClasses(table.probabilities, table.coords, side, list(labelled)))
    if not found:
        raise UsageError(f"no slide is classified by {model[:80]} yet", todo="Tune on your marks first.")
    return [_shown(*found[patch.slide], patch.row, patch.doubt) for patch in least_sure(slides, count)]


def _shown(slide_id: str, patient: str, table: ClassTable, row: int, doubt: float) -> dict[str, Any]:
    x, y = (int(value) for value in table.coords[row])
    best = np.argsort(-table.probabilities[row])[:2]
    return {
        "id": slide_id, "row": row, "x": x, "y": y, "side": table.geometry.patch_level0, "patient": patient,
        "doubt": round(doubt, 4),
        "between": [f"{table.classes[k]} {table.probabilities[row][k]:.2f}" for k in best],
    }  # fmt: skip
