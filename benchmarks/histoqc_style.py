"""Classical measures of the kind HistoQC uses, for comparison; written from its description, not from its code.

Janowczyk et al., JCO Clin. Cancer Inform. 3:1 (2019): blur by the response to a Laplacian, smoothed; dark and saturated
regions by thresholds; pen by colour; bubbles by a ridge filter (Frangi). Each gives one number per patch, larger for
worse, so that its threshold can be set at the same rate of false alarms as ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.color import rgb2gray, rgb2hsv
from skimage.filters import frangi

Rgb = NDArray[np.uint8]
Plane = NDArray[np.floating]


def laplacian_blur(patch: Rgb) -> float:
    """Minus the logarithm of the variance of the Laplacian."""
    return float(-np.log(ndi.laplace(rgb2gray(patch)).var() + 1e-9))


def smoothed_laplacian_blur(patch: Rgb) -> float:
    """Minus the mean of the absolute Laplacian, smoothed with a Gaussian of 7 pixels, at its sharpest place."""
    return float(-ndi.gaussian_filter(np.abs(ndi.laplace(rgb2gray(patch))), 7).max())


def darkness(overview: Rgb) -> Plane:
    """Saturation minus intensity of every pixel, (h, w): folds are dark and colourful."""
    hsv = rgb2hsv(overview)
    return hsv[..., 1] - hsv[..., 2]


def ridges(overview: Rgb) -> Plane:
    """Response to dark ridges of one to three pixels, (h, w)."""
    return np.nan_to_num(frangi(rgb2gray(overview), sigmas=(1, 2, 3), black_ridges=True))


def pen_colours(overview: Rgb) -> Plane:
    """Whether a pixel has a colour that only ink has by its channels, (h, w): blue, green, red or black."""
    red, green, blue = (overview[..., k].astype(np.int16) for k in range(3))
    is_blue = (red < 110) & (blue > 120) & (blue - red > 60)
    is_green = (red < 150) & (green > red + 30) & (green > blue - 10)
    is_red = (red > 110) & (green < 90) & (blue < 110)
    is_black = (red < 60) & (green < 60) & (blue < 60)
    return (is_blue | is_green | is_red | is_black).astype(np.float32)
