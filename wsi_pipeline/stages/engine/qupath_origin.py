"""The origin of QuPath's coordinates on a slide, for the outlines that stages write."""

from __future__ import annotations

from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.store.schema import SEGMENT_FORMAT, Header
from wsi_pipeline.tissue.geojson import Origin

ORIGIN = "bounds_origin"


def bounds_origin(segment: Header) -> Origin:
    """Level-0 pixel that is (0, 0) in QuPath, from the slide's segment store."""
    x, y = segment.extra.get(ORIGIN, (0, 0))
    return int(x), int(y)


def qupath_origin(segment: Header, no_crop: bool) -> Origin | None:
    """Level-0 pixel that is the origin of outlines for QuPath; None for a slide without bounds."""
    origin = bounds_origin(segment)
    return None if origin == (0, 0) else (0, 0) if no_crop else origin


def origin_in_run(run: RunDir, slide_id: str, no_crop: bool) -> Origin | None:
    """`qupath_origin` of a segmented slide."""
    path = existing_store(run.segment_store(slide_id))
    header = read_header(path, SEGMENT_FORMAT) if path else None
    return qupath_origin(header, no_crop) if header else None
