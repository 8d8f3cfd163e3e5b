"""What a brief look at a slide says about its quality: a few regions at the patches' resolution, and an overview."""

from __future__ import annotations

import numpy as np

from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.quality.measures import EDGE, FOCUS, FOLD, MEASURES, PEN, limit_of
from wsi_pipeline.quality.overview import OVERVIEW_MPP, Overview, measure_overview
from wsi_pipeline.quality.patch_pixels import measure_pixels
from wsi_pipeline.slides.inspect.preflight import Look
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.spacing import Spacing
from wsi_pipeline.tiling.grid import lay_grid
from wsi_pipeline.tiling.resolve import PatchGeometry
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.wording import counted

LEAST_PART = 0.02
"""Pen, folds and edges are noted if at least this part of the estimated patches is beyond the limit."""
_MEASURES = {measure.name: measure for measure in MEASURES}


def quality_note(seen: Look, slide: Slide, geometry: PatchGeometry, spacing: Spacing) -> str:
    """`3 of 4 regions look out of focus (edges 1.4 um wide)`; "" if nothing stands out."""
    parts = [_focus_note(seen, geometry)]
    if seen.overview is not None and seen.tissue is not None:
        parts += _overview_notes(seen, slide, geometry, float(spacing.mpp))
    return "; ".join(part for part in parts if part)


def _focus_note(seen: Look, geometry: PatchGeometry) -> str:
    shrink = geometry.level_px / geometry.patch_px
    as_patches = [
        area_resize(region, Size(*(max(1, round(side / shrink)) for side in (region.shape[1], region.shape[0]))))
        for region in seen.covered
    ]
    widths = np.array([measure_pixels(patch, geometry.mpp, False)[0] for patch in as_patches])
    known = widths[~np.isnan(widths)]
    blurred = known[known > limit_of(_MEASURES[FOCUS], geometry.mpp, geometry.scan_mpp)]
    if not len(known) or 2 * len(blurred) < len(known):
        return ""
    regions = counted(len(known), "region")
    return f"{len(blurred)} of {regions} out of focus (edges {np.median(blurred):.2g} um wide)"


def _overview_notes(seen: Look, slide: Slide, geometry: PatchGeometry, mpp: float) -> list[str]:
    """Pen, folds and edges in the coarsest level."""
    picture, tissue = seen.overview, seen.tissue
    assert picture is not None
    assert tissue is not None
    mask = TissueMask(tissue, slide.info.size, mpp)
    grid = lay_grid(mask, geometry.patch_level0, geometry.stride_level0, 0.25)
    picture_mpp = mpp * slide.info.size.width / picture.shape[1]
    if not len(grid):
        return []
    if picture_mpp < OVERVIEW_MPP:
        factor = picture_mpp / OVERVIEW_MPP
        sides = (max(1, round(side * factor)) for side in (picture.shape[1], picture.shape[0]))
        picture = area_resize(picture, Size(*sides))
    overview = Overview.of(picture, tissue, mpp * slide.info.size.width / picture.shape[1])
    found = measure_overview(overview, grid.coords, geometry.patch_level0, slide.info.size)
    notes = []
    for name in (PEN, FOLD, EDGE):
        measure = _MEASURES[name]
        part = (
            float(np.mean(found[name] > limit_of(measure, geometry.mpp, geometry.scan_mpp))) if name in found else 0.0
        )
        if part >= LEAST_PART:
            notes.append(f"{measure.artefact} on {part:.0%} of the tissue")
    return notes
