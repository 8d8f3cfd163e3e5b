"""The background of a heat map: the slide's thumbnail, the slide itself, or white if only coordinates are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError, StoreError
from wsi_pipeline.exchange.readers.foreign_file import grid_spacing
from wsi_pipeline.slides.thumbnail import read_whole
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.qupath_origin import ORIGIN, qupath_origin
from wsi_pipeline.store.schema import IMPORTED, POOLED, Header
from wsi_pipeline.store.tables.feature_table import FeatureTable
from wsi_pipeline.store.tables.segment_table import THUMBNAIL_PX, SegmentTable
from wsi_pipeline.tissue.geojson import Origin

NO_COORDINATES = "the features came without coordinates"
_LONE_PATCH = 256
_WHITE = 255
_NO_SLIDE = "drawn on white: the slide is not there"


@dataclass(frozen=True, eq=False)
class Ground:
    """A picture of the whole slide, with what drawing on it requires.

    table      the features, with the sizes of slide and patches to draw by
    picture    uint8 (h, w, 3)
    origin     origin of QuPath's coordinates; `outlined`: whether the patches' place on the slide is known
    of_slide   whether the slide's pixels may be read
    note       what users should know about the picture
    """

    table: FeatureTable
    picture: NDArray[np.uint8]
    origin: Origin | None = None
    outlined: bool = True
    of_slide: bool = True
    note: str = ""


def ground_of_imported(table: FeatureTable, segment: SegmentTable | None, slide: OpenOnce, no_crop: bool) -> Ground:
    """The background for features of another tool.

    Raises StoreError if they have no coordinates, or if the slide's size differs from the one recorded with them.
    """
    frame = frame_of(table.header)
    if frame == "none":
        raise StoreError(NO_COORDINATES, todo="Import files with coordinates, or name those beside them.")
    drawn = _sized(table, frame)
    if frame != "level0":
        note = "drawn on white, in micrometres: the slide and its resolution are not known"
        return Ground(drawn, _white(drawn), outlined=False, of_slide=False, note=note)
    identity, origin = table.header.slide, origin_of_imported(table.header, no_crop)
    if segment is not None:
        if identity.width and segment.header.slide.size != identity.size:
            raise StoreError(
                f"the features are of a slide of {identity.width} x {identity.height} pixels, the slide here has "
                f"{segment.header.slide.width} x {segment.header.slide.height}"
            )
        known = replace(drawn.header, slide=segment.header.slide)
        return Ground(replace(drawn, header=known), segment.thumbnail, qupath_origin(segment.header, no_crop))
    if not identity.quick_digest:
        return Ground(drawn, _white(drawn), origin, of_slide=False, note=_NO_SLIDE)
    try:
        opened = slide.open(identity)
        longest = max(identity.width, identity.height)
        picture = read_whole(opened, 1.0, max(1.0, longest / THUMBNAIL_PX))
    except (SlideError, OSError):
        return Ground(drawn, _white(drawn), origin, of_slide=False, note=_NO_SLIDE)
    return Ground(drawn, picture, origin, of_slide=bool(identity.mpp and table.geometry.patch_px))


def frame_of(header: Header) -> str:
    """The unit of coordinates: level0 pixels, micrometres, or `none` without coordinates (slide embeddings too)."""
    if POOLED in header.extra:
        return "none"
    return str((header.extra.get(IMPORTED) or {}).get("coords", "level0"))


def origin_of_imported(header: Header, no_crop: bool) -> Origin | None:
    """Level-0 pixel that is the origin of outlines; None if the slide has no bounds or is unknown."""
    stated = (header.extra.get(IMPORTED) or header.extra).get(ORIGIN)
    if not stated:
        return None
    return (0, 0) if no_crop else (int(stated[0]), int(stated[1]))


def _sized(table: FeatureTable, frame: str) -> FeatureTable:
    """The table with the sizes of slide and patches to draw by, estimated from the coordinates if unknown."""
    geometry, identity, coords = table.geometry, table.header.slide, table.coords
    side = geometry.patch_level0 or geometry.stride_level0 or round(grid_spacing(coords)) if len(coords) else 0
    side = side or geometry.patch_level0 or _LONE_PATCH
    if not identity.width or not identity.height or frame != "level0":
        right, bottom = (coords.max(axis=0) + side).tolist() if len(coords) else (side, side)
        identity = replace(identity, width=max(1, int(right)), height=max(1, int(bottom)))
    return replace(
        table, header=replace(table.header, slide=identity), geometry=replace(geometry, patch_level0=max(1, side))
    )


def _white(table: FeatureTable) -> NDArray[np.uint8]:
    size = table.header.slide.size
    scale = min(1.0, THUMBNAIL_PX / max(size.width, size.height))
    return np.full((max(1, round(size.height * scale)), max(1, round(size.width * scale)), 3), _WHITE, np.uint8)
