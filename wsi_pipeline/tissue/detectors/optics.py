"""From RGB to the quantities the detectors use: background colour, optical density, local texture.

Optical density follows Beer and Lambert, OD = -log10(I / I0), with the I0 of the slide's own glass (Ruifrok and
Johnston 2001 take a fixed one): grey or tinted glass then has density zero.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from wsi_pipeline.tissue.detectors.filters import local_mean, local_range

BRIGHT = 150
"""Glass has every channel above this."""
NEUTRAL, YELLOWED = 14, 42
"""Glass has channels no further apart than the first value, or the second if it is yellow, as old mountant is."""
SMOOTH = 6
"""Glass changes by no more than this, in grey levels, between neighbours once sensor noise is averaged out."""
PADDING_WHITE = 254
"""Scanners fill unscanned areas with pure white."""
MIN_GLASS = 0.002
"""Below this fraction of the picture there is no glass to measure, and a white paper value is used."""
WHITE = 245.0
DARKEST = 1.6
"""Optical density of black: the few grey levels below are noise, stray light and JPEG; ink may reach them."""
SAMPLE = 500_000
"""Number of pixels sufficient to measure a colour."""


def looks_like_glass(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels bright, near-neutral and smooth enough to be empty glass, bool (h, w); pale tissue may be among them."""
    red, green, blue = (np.ascontiguousarray(rgb[..., channel]) for channel in range(3))
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    spread = high - low
    yellowed = (blue == low) & (spread <= YELLOWED) & (np.maximum(red, green) - np.minimum(red, green) <= NEUTRAL)
    quiet = local_mean(green.astype(np.float32), 1).astype(np.uint8)
    return np.asarray((low >= BRIGHT) & ((spread <= NEUTRAL) | yellowed) & (local_range(quiet, 1) <= SMOOTH))


def background_colour(rgb: NDArray[np.uint8], glass: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Colour of the empty glass, float32 (3,): the brightest common colour of `rgb` (h, w, 3) where `glass` may be.

    The brightest, because pale tissue may be larger than the glass around it. Pure white is scanner padding and
    counts only when there is no other glass. Without any, 245 grey.
    """
    step = max(1, math.isqrt(glass.size // SAMPLE))
    glass = glass[::step, ::step]
    colours = rgb[::step, ::step][glass]
    for chosen in (colours[colours.min(axis=1, initial=255) < PADDING_WHITE], colours):
        if len(chosen) >= max(MIN_GLASS * glass.size, 1):
            return _brightest_mode(chosen)
    return np.full(3, WHITE, dtype=np.float32)


def _brightest_mode(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Median of the colours near the brightest grey value that at least a tenth of the most common one's count has."""
    grey = colours.mean(axis=1)
    counts = ndi.uniform_filter1d(np.bincount(grey.astype(np.intp), minlength=256).astype(float), 5)
    mode = int(np.flatnonzero(counts >= 0.1 * counts.max())[-1])
    near = np.abs(grey - mode) <= 8
    return np.asarray(np.median(colours[near], axis=0), dtype=np.float32)


def optical_density(rgb: NDArray[np.uint8], background: NDArray[np.float32]) -> NDArray[np.float32]:
    """Optical density, float32 (3, h, w), over `background` (3,), clipped to 0 (brighter than it) to DARKEST."""
    levels = np.arange(256, dtype=np.float32) + 1
    out = np.empty((3, *rgb.shape[:2]), dtype=np.float32)
    for channel in range(3):
        table = np.clip(np.log10((background[channel] + 1) / levels), 0, DARKEST).astype(np.float32)
        np.take(table, rgb[..., channel], out=out[channel], mode="clip")
    return out


def mean_density(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the three optical densities (3, h, w): the amount of stain of any colour."""
    mean: NDArray[np.float32] = density[0] + density[1]
    mean += density[2]
    mean *= np.float32(1 / 3)
    return mean


def pixels_of(length_um: float, mpp: float) -> int:
    """A length in whole pixels, at least 1."""
    return max(1, round(length_um / mpp))
