"""Tissue detectors: pure functions `(rgb uint8 (h, w, 3), mpp) -> bool (h, w)`, registered by name in SEGMENTERS.

mpp is that of the picture, in micrometres per pixel. A detector need not drop small fragments: clean-up does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from wsi_pipeline.config.registries import TISSUE_DETECTORS
from wsi_pipeline.registry import Registry
from wsi_pipeline.tissue.detectors.filters import local_mean
from wsi_pipeline.tissue.detectors.hybrid import hybrid
from wsi_pipeline.tissue.detectors.optics import (
    background_colour,
    looks_like_glass,
    mean_density,
    optical_density,
    pixels_of,
)

Segmenter = Callable[[NDArray[np.uint8], float], NDArray[np.bool_]]

SEGMENTERS: Registry[Segmenter] = TISSUE_DETECTORS
SEGMENTERS.register("hybrid")(hybrid)

NONE = "none"

MIN_SATURATION = 12
"""Otsu's cut on saturation (0 to 255) never goes below this: a blank slide holds only noise to split."""
MIN_DENSITY = 0.05


@SEGMENTERS.register(NONE)
def whole_slide(rgb: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """No detection: everything is tissue, for files that show a single region."""
    return np.ones(rgb.shape[:2], np.bool_)


@SEGMENTERS.register("density")
def density(rgb: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Baseline: smoothed mean optical density over the slide's own glass above 0.05."""
    mean = mean_density(optical_density(rgb, background_colour(rgb, looks_like_glass(rgb))))
    return local_mean(mean, pixels_of(16, mpp)) > MIN_DENSITY


@SEGMENTERS.register("otsu")
def otsu(rgb: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Baseline: smoothed HSV saturation above Otsu's threshold (Otsu 1979), as most pipelines begin."""
    red, green, blue = (rgb[..., channel].astype(np.float32) for channel in range(3))
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    saturation = (255 * (high - low) / np.maximum(high, 1)).astype(np.float32)
    smooth = local_mean(saturation, pixels_of(16, mpp)).astype(np.uint8)
    cut = threshold_otsu(smooth)  # type: ignore[no-untyped-call]
    return np.asarray(smooth > max(cut, MIN_SATURATION))
