"""Quality of one slide for the report: its medians, what is beyond the limits, and a picture of where."""

from __future__ import annotations

import logging
from typing import Any

from PIL import Image

from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.errors import StoreError
from wsi_pipeline.report.maps.artefact_overlay import draw_artefacts
from wsi_pipeline.report.maps.pictures import shrink_png
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.store.schema import PATCH_FORMAT, QUALITY
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.store.tables.segment_table import read_segment_table

logger = logging.getLogger(__name__)

PICTURE_PX = 480
"""Longest side of a picture."""


def quality_fields(run: RunDir, slide_id: str, *, picture: bool) -> dict[str, Any]:
    """`quality`, `beyond`, `dropped` and `artefacts` of a slide's row; empty if it was not measured."""
    path = existing_store(run.patch_store(slide_id))
    header = read_header(path, PATCH_FORMAT) if path else None
    if path is None or header is None or QUALITY not in header.extra:
        return {}
    rows = header.extra[QUALITY].get("measures", {})
    dropped = dict(header.extra.get("dropped") or {})
    beyond = {name: row["beyond"] for name, row in rows.items() if row.get("beyond") is not None}
    fields: dict[str, Any] = {
        "quality": {name: row["median"] for name, row in rows.items() if row.get("median") is not None},
        "beyond": beyond,
        "dropped": dropped,
    }
    if picture and (any(beyond.values()) or dropped):
        fields["artefacts"] = _picture(run, slide_id)
    return fields


def _picture(run: RunDir, slide_id: str) -> bytes | None:
    """The artefacts among the patches kept and left out; None if a store cannot be read."""
    patches, segment = existing_store(run.patch_store(slide_id)), existing_store(run.segment_store(slide_id))
    if patches is None or segment is None:
        return None
    try:
        table, thumbnail = read_patch_table(patches), read_segment_table(segment).thumbnail
    except StoreError as error:
        logger.warning("%s: no picture of its artefacts: %s", slide_id, error)
        return None
    drawn = Image.fromarray(thumbnail).convert("RGB")
    draw_artefacts(drawn, table.header.slide.size, table.geometry.patch_level0, table.flagged())
    return shrink_png(drawn, PICTURE_PX)
