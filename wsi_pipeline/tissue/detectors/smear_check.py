"""Fraction of a mask without texture: smears of dye and haze on the glass have none, tissue does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.tissue.detectors.filters import dilated, eroded, local_mean, shrunk
from wsi_pipeline.tissue.detectors.optics import DARKEST, pixels_of

BLOCK = 3
"""Texture is the standard deviation within blocks of this many pixels a side."""
SPECK = 0.08
"""Deviation is capped here, so that a speck of dust does not lend its texture to the smear around it."""
NEAR_UM = 24.0
"""Radius over which texture is averaged."""
AS_GLASS, LEAST = 1.2, 0.001
"""A texture counts as even if it is below the first value times that of the glass around the mask, plus the second."""


def smooth_fraction(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], mpp: float) -> float:
    """Fraction of a mask (h, w) of `rgb` (h, w, 3) that is as even as the glass around it, 0 to 1.

    Green only: every stain absorbs it. 0 if the mask is empty or there is no glass to compare with.
    """
    table = np.minimum(np.log10(256 / (np.arange(256) + 1)), DARKEST).astype(np.float32)
    green = table[rgb[..., 1]]
    mean = shrunk(green, BLOCK)
    deviation = np.sqrt(np.maximum(shrunk(green * green, BLOCK) - mean * mean, 0))
    texture = local_mean(np.minimum(deviation, SPECK), pixels_of(NEAR_UM, BLOCK * mpp))
    covered = shrunk(mask.astype(np.float32), BLOCK)
    inside, glass = eroded(covered > 0.99, 1), ~dilated(covered > 0, 1)
    if not inside.any() or not glass.any():
        return 0.0
    limit = AS_GLASS * float(np.median(texture[glass])) + LEAST
    return float(np.mean(texture[inside] < limit))
