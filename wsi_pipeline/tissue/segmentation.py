"""Find tissue on one slide: detector, clean-up, and a warning if the result looks wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.cleanup import clean_mask
from wsi_pipeline.tissue.detectors.methods import NONE, SEGMENTERS
from wsi_pipeline.tissue.detectors.smear_check import smooth_fraction
from wsi_pipeline.tissue.mask import TissueMask

NEARLY_ALL = 0.95
"""More tissue than this is rare on a glass slide, which has empty margins; files that hold one region have it."""
ALMOST_NOTHING = 0.0005
"""Less tissue than this is about a tenth of a needle biopsy on a 15 x 15 mm scan: dust or a lost section."""
SMEAR = 0.05
"""More of the mask than this without any texture is not tissue; on real slides and drawn ones it was at most 0.004."""


@dataclass(frozen=True)
class Segmentation:
    """The tissue of a slide, and a warning if the result looks wrong (else "")."""

    mask: TissueMask
    warning: str


def segment_tissue(rgb: NDArray[np.uint8], slide_size: Size, mpp: float, spec: SegmentSpec) -> Segmentation:
    """Find tissue on a picture of a whole slide.

    rgb         uint8 (h, w, 3), spanning the slide exactly; of any resolution, ideally about spec.mask_mpp
    slide_size  level-0 size in pixels
    mpp         micrometres per level-0 pixel

    No tissue is a result with a warning. Raises UsageError for an unknown method, SlideError for another array.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise SlideError(f"the picture to segment must be uint8 (h, w, 3), got {rgb.dtype} {rgb.shape}")
    found = SEGMENTERS.get(spec.method)(rgb, _picture_mpp(rgb, slide_size, mpp))
    if spec.method == NONE:
        return Segmentation(TissueMask(found, slide_size, mpp), "")
    return finished(found, rgb, slide_size, mpp, spec)


def finished(
    found: NDArray[np.bool_], rgb: NDArray[np.uint8], slide_size: Size, mpp: float, spec: SegmentSpec
) -> Segmentation:
    """The tissue (h, w) that a detector found on a picture (h, w, 3): cleaned up, with a warning if it looks wrong."""
    picture_mpp = _picture_mpp(rgb, slide_size, mpp)
    clean = clean_mask(found, picture_mpp**2, spec.min_tissue_um2, spec.max_hole_um2)
    warning = _warning(found, clean, picture_mpp**2, spec) or _smear_warning(rgb, clean, picture_mpp)
    return Segmentation(TissueMask(clean, slide_size, mpp), warning)


def _picture_mpp(rgb: NDArray[np.uint8], slide_size: Size, mpp: float) -> float:
    height, width = rgb.shape[:2]
    return mpp * math.sqrt(slide_size.pixels / (height * width))


def _warning(found: NDArray[np.bool_], clean: NDArray[np.bool_], pixel_um2: float, spec: SegmentSpec) -> str:
    fraction = float(np.mean(clean))
    if fraction == 0 and found.any():
        dropped = np.count_nonzero(found) * pixel_um2
        limit = spec.min_tissue_um2
        return f"no tissue found: all fragments ({dropped:,.0f} um2 together) are smaller than {limit:,.0f} um2 each"
    if fraction == 0:
        return "no tissue found"
    if fraction > NEARLY_ALL:
        part = f"{100 * fraction:.0f} %"
        return (
            f"mask covers nearly all of the slide ({part}): fine for a file of one region, otherwise check the overlay"
        )
    if fraction < ALMOST_NOTHING:
        return f"almost no tissue ({100 * fraction:.2g} %)"
    return ""


def _smear_warning(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], mpp: float) -> str:
    share = smooth_fraction(rgb, mask, mpp)
    if share <= SMEAR:
        return ""
    what = f"{100 * share:.0f} % of the mask is as smooth as bare glass"
    return f"{what}: possibly a smear of dye or haze; check the overlay and, if so, try --method otsu"
