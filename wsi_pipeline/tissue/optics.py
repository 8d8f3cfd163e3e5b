"""From RGB to what the detectors look at: background colour, optical density, local texture.

Optical density follows Beer and Lambert, OD = -log10(I / I0), with the I0 of the slide's own background (Ruifrok and
Johnston 2001 take a fixed one): grey or tinted glass then has density zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

BRIGHT, NEUTRAL = 165, 45
"""Glass has every channel above the first and channels no further apart than the second."""
SMOOTH = 6
"""Glass changes by no more than this, in grey levels, between neighbours."""
MIN_GLASS = 0.002
"""Below this fraction of the picture there is no glass to measure, and white paper stands in for it."""
WHITE = 245.0


def background_colour(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour of the empty glass, float32 (3,): median over bright, near-neutral, smooth pixels of `rgb` (h, w, 3).

    Pure white is scanner padding and counts only when there is no other glass. Without any, 245 grey.
    """
    low, high = rgb.min(axis=2), rgb.max(axis=2)
    glass = (low >= BRIGHT) & (high - low <= NEUTRAL) & _smooth(rgb[..., 1])
    scanned = glass & (low < 254)
    for chosen in (scanned, glass):
        if np.count_nonzero(chosen) >= max(MIN_GLASS * low.size, 1):
            return np.asarray(np.median(rgb[chosen], axis=0), dtype=np.float32)
    return np.full(3, WHITE, dtype=np.float32)


def _smooth(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    spread = ndi.maximum_filter(grey, 3) - ndi.minimum_filter(grey, 3)
    return np.asarray(spread <= SMOOTH)


def optical_density(rgb: NDArray[np.uint8], background: NDArray[np.float32]) -> NDArray[np.float32]:
    """Optical density (h, w, 3) float32 over `background` (3,); brighter than the background is 0."""
    levels = np.arange(256, dtype=np.float32) + 1
    out = np.empty(rgb.shape, dtype=np.float32)
    for channel in range(3):
        table = np.maximum(np.log10((background[channel] + 1) / levels), 0).astype(np.float32)
        np.take(table, rgb[..., channel], out=out[..., channel])
    return out


def local_mean(image: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Mean over a (2 radius + 1) square around each pixel, edges mirrored."""
    return np.asarray(ndi.uniform_filter(image, 2 * radius + 1, mode="reflect"))


def local_deviation(image: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Standard deviation over a (2 radius + 1) square around each pixel, edges mirrored."""
    mean = local_mean(image, radius)
    return np.sqrt(np.maximum(local_mean(image * image, radius) - mean * mean, 0))


def pixels_of(length_um: float, mpp: float) -> int:
    """A length in whole pixels, at least 1."""
    return max(1, round(length_um / mpp))
