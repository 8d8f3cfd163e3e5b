"""Tissue detectors: pure functions `(rgb uint8 (h, w, 3), mpp) -> bool (h, w)`, filed by name in SEGMENTERS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.filters import threshold_otsu

from wsi_pipeline.registry import Registry
from wsi_pipeline.tissue.optics import background_colour, local_deviation, local_mean, optical_density, pixels_of

Segmenter = Callable[[NDArray[np.uint8], float], NDArray[np.bool_]]

SEGMENTERS: Registry[Segmenter] = Registry("tissue detector")

MIN_SATURATION = 12
"""Otsu's cut on saturation (0 to 255) never goes below this: a blank slide has nothing but noise to split."""


@SEGMENTERS.register("hybrid")
def hybrid(rgb: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Colour or texture above the slide's own glass, without pen, padding and dust."""
    density = optical_density(rgb, background_colour(rgb))
    mean = density.mean(axis=2)
    chroma = density.max(axis=2) - density.min(axis=2)
    coloured = local_mean(chroma, 1) > 0.03
    textured = local_mean(np.minimum(local_deviation(mean, 2), 0.1), 3) > 0.025
    return np.asarray(ndi.binary_opening(coloured | textured, iterations=pixels_of(8, mpp)))


@SEGMENTERS.register("otsu")
def otsu(rgb: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Baseline: median-filtered HSV saturation above Otsu's threshold (Otsu 1979), as most pipelines begin."""
    high = rgb.max(axis=2).astype(np.float32)
    saturation = 255 * (high - rgb.min(axis=2)) / np.maximum(high, 1)
    smooth = local_mean(saturation, pixels_of(16, mpp)).astype(np.uint8)
    cut = threshold_otsu(smooth)  # type: ignore[no-untyped-call]
    return np.asarray(smooth > max(cut, MIN_SATURATION))
