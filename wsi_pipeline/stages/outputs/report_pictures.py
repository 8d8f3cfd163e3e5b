"""The pictures of slides in the report: which slides, which size, and which files of the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.errors import StoreError
from wsi_pipeline.report.data import ModelSection
from wsi_pipeline.report.maps.pictures import PicturePlan, plan_pictures, shrink_png
from wsi_pipeline.report.page.findings import ranked
from wsi_pipeline.stages.outputs.png_chunks import read_overlay
from wsi_pipeline.statistics.metric_words import CLASS_TASKS
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.wording import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SlidePictures:
    """Provides the pictures of each slide of a run, as many and as large as the plan allows.

    keys     models whose attention is shown, best first: (encoder, model) folder names
    chosen   slides that get pictures
    """

    run: RunDir
    plan: PicturePlan
    keys: tuple[tuple[str, str], ...]
    chosen: frozenset[str]

    @classmethod
    def of(
        cls, run: RunDir, records: Sequence[SlideRecord], models: Sequence[ModelSection], n_other: int
    ) -> SlidePictures:
        """Plan for the slides and models of a run; the report shows `n_other` more pictures per slide elsewhere."""
        plan = plan_pictures(len(records), len(models), n_other)
        order = ranked(models)
        keys = tuple((model.encoder, model.mil_model) for model in order[: plan.models])
        wrong = _wrong(order[0]) if order else set()
        first = sorted(records, key=lambda record: record.slide_id not in wrong)[: plan.slides]
        return cls(run, plan, keys, frozenset(record.slide_id for record in first))

    def fields(self, record: SlideRecord) -> dict[str, Any]:
        """`overlay_png`, `thumbnail`, `heatmaps` and `sheets` of a slide's row; empty if it was not chosen."""
        if record.slide_id not in self.chosen:
            return {}
        heats = {f"{encoder}/{model}": self._heat(encoder, model, record) for encoder, model in self.keys}
        found = {key: picture for key, picture in heats.items() if picture}
        return {
            "overlay_png": self.small(self.run.overlay(record.slide_id)),
            "thumbnail": self._thumbnail(record) if found else None,
            "heatmaps": found,
            "sheets": self._sheet(record),
        }

    def small(self, path: Path) -> bytes | None:
        """A picture's file, shrunk and encoded; None if it is missing."""
        return shrink_png(path.read_bytes(), self.plan.side) if path.is_file() else None

    def note(self, n_slides: int, n_models: int) -> str:
        """A sentence on what was left out to limit the file size; "" if nothing was."""
        parts = []
        if len(self.chosen) < n_slides:
            parts.append(
                f"pictures of {len(self.chosen)} of {counted(n_slides, 'slide')}, wrongly predicted ones first"
            )
        if len(self.keys) < n_models:
            parts.append("attention of the best model only")
        return (
            f"To keep this file small: {'; '.join(parts)}. All pictures are in segment/ and heatmap/." if parts else ""
        )

    def _heat(self, encoder: str, model: str, record: SlideRecord) -> bytes | None:
        """The attention overlay, drawn on the thumbnail."""
        overlay = read_overlay(self.run.heatmap(encoder, model, record.slide_id))
        return None if overlay is None else shrink_png(overlay, self.plan.side)

    def _thumbnail(self, record: SlideRecord) -> bytes | None:
        path = existing_store(self.run.segment_store(record.slide_id))
        if path is None:
            return None
        try:
            return shrink_png(read_segment_table(path).thumbnail, self.plan.side)
        except StoreError as error:
            logger.warning("%s: no thumbnail in the report: %s", record.slide_id, error)
            return None

    def _sheet(self, record: SlideRecord) -> dict[str, bytes]:
        if not self.plan.sheet or not self.keys:
            return {}
        encoder, model = self.keys[0]
        path = self.run.heatmap_file(encoder, model, record.slide_id, ".patches.jpg")
        return {f"{encoder}/{model}": shrink_png(path.read_bytes(), self.plan.sheet)} if path.is_file() else {}


def _wrong(model: ModelSection) -> set[str]:
    """Slides that a classifier misclassified."""
    table = model.predictions
    if table is None or model.task not in CLASS_TASKS or not {"slide_id", "label", "predicted"} <= set(table):
        return set()
    return set(table.loc[table["label"].astype(str) != table["predicted"].astype(str), "slide_id"].astype(str))
