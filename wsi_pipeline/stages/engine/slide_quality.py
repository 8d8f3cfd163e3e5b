"""Measure the quality of one slide's patches: on a small picture of the slide, and on the pixels of patches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.quality.measures import ARTEFACTS, REVISION
from wsi_pipeline.quality.overview import OVERVIEW_MPP, Overview, measure_overview
from wsi_pipeline.quality.patch_pixels import NAMES, measure_pixels
from wsi_pipeline.quality.patch_quality import PatchQuality, artefact_of, sample_rows, summary_of
from wsi_pipeline.reading.patch_sources import SlidePatches
from wsi_pipeline.store.tables.quality_columns import DroppedPatches
from wsi_pipeline.system.prefetch import prefetch
from wsi_pipeline.tiling.grid import PatchGrid
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.wording import counted

MASK_MPP = OVERVIEW_MPP / 2
"""Resolution at which the slide is read for it: that of the tissue mask by default, so that it is read once."""
_READERS = 2
MOSTLY = 0.5
"""A note is given if more than this part of the measured patches is beyond a limit."""


@dataclass(frozen=True, eq=False)
class SlideQuality:
    """Measures of a slide's patches.

    mpp          resolution of the patches, micrometres per pixel; scan_mpp: of the slide
    unreadable   patches whose pixels could not be decoded, and the first error
    """

    columns: PatchQuality
    mpp: float
    scan_mpp: float
    unreadable: int = 0
    error: str = ""

    def facts(self, pixels: str, digest: str) -> dict[str, Any]:
        """For the header of the patch store."""
        note = self.note()
        return {
            "revision": REVISION, "pixels": pixels, "digest": digest, "overview_mpp": OVERVIEW_MPP,
            "measures": summary_of(self.columns, self.mpp, self.scan_mpp), **({"note": note} if note else {}),
        }  # fmt: skip

    def note(self) -> str:
        """What is wrong with most of the slide, or with reading it; "" if nothing is."""
        summary = summary_of(self.columns, self.mpp, self.scan_mpp)
        parts = []
        for measure in ARTEFACTS:
            row = summary[measure.name]
            if (row.get("beyond") or 0) > MOSTLY:
                share = f"{row['beyond']:.0%} of {counted(int(row['measured'] or 0), 'measured patch')}"
                parts.append(f"{measure.artefact}: {share}")
        if self.unreadable:
            parts.append(f"{counted(self.unreadable, 'patch')} not measured: {self.error}")
        return "; ".join(parts)


def measure_slide(picture: NDArray[np.uint8], mask: TissueMask, patches: SlidePatches, pixels: str) -> SlideQuality:
    """Measure all patches of a slide.

    picture   uint8 (h, w, 3), the whole slide at MASK_MPP
    pixels    `all`: the pixels of every patch are read; `sample`: those of some, evenly spread

    A patch that does not decode is counted, not raised: it is the encoder's to refuse it.
    """
    small, mpp = _overview(picture, mask)
    overview = Overview.of(small, mask.pixels, mpp)
    columns = dict(measure_overview(overview, patches.coords, patches.geometry.patch_level0, mask.slide_size))
    rows = np.arange(len(patches)) if pixels == "all" else sample_rows(len(patches))
    values = np.full((len(patches), len(NAMES)), np.nan)
    errors = []
    measure = _measurer(patches)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="quality") as pool:
        for row, found in zip(rows, prefetch(pool, measure, rows.tolist(), 2 * _READERS), strict=True):
            if isinstance(found, str):
                errors.append(found)
            else:
                values[row] = found
    columns.update(dict(zip(NAMES, values.T, strict=True)))
    quality = PatchQuality.of(columns, len(patches))
    geometry = patches.geometry
    return SlideQuality(quality, geometry.mpp, geometry.scan_mpp, len(errors), errors[0] if errors else "")


def drop_artefacts(grid: PatchGrid, quality: SlideQuality) -> tuple[PatchGrid, SlideQuality, DroppedPatches]:
    """The patches within all limits with their measures, and the others with the reason."""
    why = artefact_of(quality.columns, quality.mpp, quality.scan_mpp)
    keep = why < 0
    reasons = tuple(measure.artefact for measure in ARTEFACTS)
    left_out = DroppedPatches(grid.coords[~keep], why[~keep].astype(np.int64), reasons)
    kept = replace(quality, columns=quality.columns.take(keep))
    return PatchGrid(grid.coords[keep], grid.coverage[keep]), kept, left_out


def dropped_words(counts: dict[str, int], of: int) -> str:
    """`12 of 383 patches dropped: 10 out of focus, 2 fold`; "" if none were."""
    total = sum(counts.values())
    if not total:
        return ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    share = f"all {counted(of, 'patch')}" if total == of else f"{total} of {counted(of, 'patch')}"
    return f"{share} dropped: {reasons}"


def _measurer(patches: SlidePatches) -> Callable[[int], tuple[float, ...] | str]:
    geometry = patches.geometry
    as_stored = geometry.level_px == geometry.patch_px

    def measure(row: int) -> tuple[float, ...] | str:
        """The measures of one patch, or why it cannot be read."""
        try:
            return measure_pixels(patches.read(row), geometry.mpp, as_stored)
        except SlideError as error:
            return error.what

    return measure


def _overview(picture: NDArray[np.uint8], mask: TissueMask) -> tuple[NDArray[np.uint8], float]:
    """The picture at OVERVIEW_MPP, or as it is if coarser, and its resolution."""
    full, height, width = mask.slide_size, *picture.shape[:2]
    mpp = mask.mpp * full.width / width
    if mpp < OVERVIEW_MPP:
        factor = mpp / OVERVIEW_MPP
        picture = area_resize(picture, Size(max(1, round(width * factor)), max(1, round(height * factor))))
    return picture, mask.mpp * full.width / picture.shape[1]
