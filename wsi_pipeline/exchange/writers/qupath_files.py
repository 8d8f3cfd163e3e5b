"""GeoJSON for QuPath: tissue as annotations, every patch as a tile with its measurements.

    <slide_id>.geojson     drag it onto the open slide in QuPath 0.4 or newer

Patches have the measurement `Tissue`, their label as classification, and their row in the stores as name. Coordinates
have QuPath's origin on the slide.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.tissue.geojson import from_origin, to_geojson

_COLOURS = ((230, 97, 1), (94, 60, 153), (27, 120, 55), (178, 24, 43), (33, 102, 172), (153, 112, 171))


def write_qupath(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns the file."""
    document = to_geojson(slide.tissue, slide.mpp or 1.0)
    document["features"] += [_tile(slide, row) for row in range(len(slide.coords))]
    path = folder / f"{slide.slide_id}.geojson"
    write_text(path, json.dumps(from_origin(document, slide.origin)))
    return [path]


def _tile(slide: SlideContent, row: int) -> dict[str, Any]:
    x, y = (int(value) for value in slide.coords[row])
    side = slide.side
    properties: dict[str, Any] = {"objectType": "tile", "name": str(row), "isLocked": True}
    if slide.coverage is not None:
        properties["measurements"] = {"Tissue": round(float(slide.coverage[row]), 4)}
    if slide.patch_labels is not None and slide.patch_labels[0][row] >= 0:
        code, classes = int(slide.patch_labels[0][row]), slide.patch_labels[1]
        properties["classification"] = {"name": classes[code], "color": list(_COLOURS[code % len(_COLOURS)])}
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{slide.slide_id} {x} {y} {side}")),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def finish_qupath(cohort: CohortContent, folder: Path) -> str:
    """Returns what to do next."""
    return f"open a slide in QuPath and drag {folder}/SLIDE_ID.geojson onto it"


EXPORT_FORMATS.register("qupath")(
    ExportFormat("qupath", "patches", "QuPath 0.4 GeoJSON", write_qupath, finish_qupath, empty=True)
)
