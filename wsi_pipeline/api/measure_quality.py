"""`wp.measure_quality`: focus, folds, pen, edges and stain of the patches of one slide, as `tile` measures them."""

from __future__ import annotations

from os import PathLike

from wsi_pipeline.api.find_tissue import opened
from wsi_pipeline.api.patches import Patches
from wsi_pipeline.errors import SlideError, UsageError
from wsi_pipeline.quality.patch_quality import PatchQuality
from wsi_pipeline.reading.patch_sources import SlidePatches
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.stages.engine.slide_quality import MASK_MPP, measure_slide
from wsi_pipeline.stages.engine.whole_pictures import read_pictures


def measure_quality(slide: Slide | str | PathLike[str], patches: Patches, *, pixels: str = "all") -> PatchQuality:
    """Quality of the patches, in the order of `patches.coords`: `quality.column("focus")` is float32 (N,).

    pixels   whose pixels are read for focus, JPEG blocks and clipping: `all`, or a `sample`; the others are NaN

    Raises SlideError if this is not the slide the patches were laid on, UsageError for another value of `pixels`.
    """
    if pixels not in ("all", "sample"):
        raise UsageError(f"pixels must be all or sample, got {pixels!r}")
    with opened(slide) as source:
        if source.info.levels != patches.tissue.info.levels:
            raise SlideError(
                f"{source.name} is not the slide these patches were laid on: {patches.tissue.slide}",
                todo="Lay patches on this slide.",
            )
        picture, _ = read_pictures(source, patches.tissue.mpp, MASK_MPP)
        place = SlidePatches(source, patches.coords, patches.geometry)
        return measure_slide(picture, patches.tissue.mask, place, pixels).columns
