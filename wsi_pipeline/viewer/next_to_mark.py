"""What to mark next: the patches the tuned model is least sure of, spread over slides and within each slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_pipeline.cohort.run_dir import existing_store
from wsi_pipeline.errors import UsageError, WsiPipelineError
from wsi_pipeline.stages.results.fractions import made_alike, newest_classes
from wsi_pipeline.stages.results.least_sure import SlidePatchClasses, least_sure
from wsi_pipeline.store.tables.class_table import ClassTable, read_class_table
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.marked_patches import marked_rows
from wsi_pipeline.viewer.marks import Marks
from wsi_pipeline.wording import counted, listed


@dataclass(frozen=True)
class NextToMark:
    """Patches to mark in order of decreasing `doubt`, and the slides classified by an earlier model, left out."""

    patches: list[dict[str, Any]]
    left_out: list[str]

    @property
    def note(self) -> str:
        """What is left out, in a sentence; empty if nothing is."""
        if not self.left_out:
            return ""
        which = f"{counted(len(self.left_out), 'slide')} ({listed(self.left_out)})"
        return f"Without {which}, last classified before the model was tuned again."


def next_to_mark(library: Library, marks: Marks, model: str, count: int) -> NextToMark:
    """Up to `count` patches that have no mark yet, of the slides classified by the newest weights of `model`.

    Raises UsageError if no slide was classified with this model.
    """
    found: list[tuple[str, str, ClassTable]] = []
    slides: list[SlidePatchClasses] = []
    left_out: list[str] = []
    like = newest_classes(marks.run, model, library.records)
    for slide_id, record in library.records.items():
        store = existing_store(marks.run.class_store(model, slide_id))
        if store is None or like is None:
            continue
        try:
            table = read_class_table(store)
        except WsiPipelineError:
            continue
        if not made_alike(table.header, like):
            left_out.append(slide_id)
            continue
        side = table.geometry.patch_level0
        labelled, _, _ = marked_rows(marks.read(slide_id)["features"], table.coords, side)
        found.append((slide_id, record.patient_id, table))
        slides.append(SlidePatchClasses(table.probabilities, table.coords, side, list(labelled)))
    if not found:
        raise UsageError(f"no slide is classified by {model[:80]} yet", todo="Tune on your marks first.")
    chosen = least_sure(slides, count)
    return NextToMark([_shown(*found[patch.slide], patch.row, patch.doubt) for patch in chosen], left_out)


def _shown(slide_id: str, patient: str, table: ClassTable, row: int, doubt: float) -> dict[str, Any]:
    x, y = (int(value) for value in table.coords[row])
    best = np.argsort(-table.probabilities[row])[:2]
    return {
        "id": slide_id, "row": row, "x": x, "y": y, "side": table.geometry.patch_level0, "patient": patient,
        "doubt": round(doubt, 4),
        "between": [f"{table.classes[k]} {table.probabilities[row][k]:.2f}" for k in best],
    }  # fmt: skip
