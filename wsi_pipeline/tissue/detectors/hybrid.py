"""The default tissue detector: colour and texture together, judged against the slide's own glass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from wsi_pipeline.tissue.cleanup import EIGHT_CONNECTED
from wsi_pipeline.tissue.detectors.filters import closed, eroded, local_deviation, local_mean, opened
from wsi_pipeline.tissue.detectors.optics import (
    background_colour,
    looks_like_glass,
    mean_density,
    optical_density,
    pixels_of,
)
from wsi_pipeline.tissue.detectors.padding import hair_lines, padding_mask
from wsi_pipeline.tissue.detectors.pen import pen_mask

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

CHROMA, TEXTURE = 0.020, 0.014
"""Spread of the three optical densities, and local deviation of their mean, that each count 1 as evidence of tissue."""
SPECK = 0.08
"""Deviation is capped here, so that a speck of dust does not count as texture of its whole neighbourhood."""
WEAK, STRONG, MIN_SURE = 0.8, 1.6, 0.1
"""Evidence every pixel of a fragment needs, stronger evidence, and the part of the fragment that needs the latter."""
MAX_WEAK = 1.6
"""Highest weak limit: glass so noisy that it would raise the limit further is probably not glass."""
HAZE, HAZE_RANGE = 0.1, (0.010, 0.025)
"""Tissue scatters light: glass beside it is grey by up to this part of the tissue's density, within the range."""
QUIET, YELLOW = 0.004, 0.6
"""Glass-like pixels with less texture than the first and the second part of their density in blue are yellowed glass:
mountant and cover glasses often end within the slide."""
COLOUR, MIN_COLOURED = 0.012, 0.15
"""Spread of densities that counts as colour, and the fraction of a fragment that must have it."""
COLOURLESS_UM = 100.0
"""Colourless fragments that no square of twice this size fits into are dust, glass edges, hairs and bubbles;
thicker ones may be a silver stain."""


def hybrid(rgb: NDArray[np.uint8], mpp: float) -> Mask:
    """Tissue by colour or texture, without pen, padding, hair lines and dust: bool (h, w) for uint8 (h, w, 3).

    A pale fragment counts if a tenth of it is clearly tissue (hysteresis, Canny 1986), so that pale and dark
    pieces on one slide do not compete for one threshold.
    """
    glass = looks_like_glass(rgb)
    density = optical_density(rgb, background_colour(rgb, glass))
    mean = mean_density(density)
    deviation = local_deviation(mean, 1)
    chroma = local_mean(_spread(density), 1)
    texture = local_mean(np.minimum(deviation, SPECK), pixels_of(24, mpp))
    evidence = chroma / CHROMA + texture / TEXTURE
    evidence[glass & (texture < QUIET) & (density[2] > YELLOW * 3 * mean)] = 0
    weak = _noise_limit(evidence[::3, ::3][glass[::3, ::3]])
    excluded = padding_mask(rgb) | pen_mask(density, deviation, mpp)
    found = (evidence > weak) & ~excluded
    found &= mean > _haze(mean[found])
    found = _smoothed(found, excluded, mpp)
    return _kept(found, evidence > weak * STRONG / WEAK, chroma > COLOUR, mpp)


def _noise_limit(glass: Plane) -> float:
    """The weak limit, raised to four standard deviations above that of glass (from the median deviation)."""
    if not glass.size:
        return WEAK
    middle = float(np.median(glass))
    limit = middle + 4 * 1.4826 * float(np.median(np.abs(glass - middle)))
    return max(WEAK, limit) if limit < MAX_WEAK else WEAK


def _haze(densities: Plane) -> float:
    typical = float(np.percentile(densities, 75)) if densities.size else 0.0
    return float(np.clip(HAZE * typical, *HAZE_RANGE))


def _smoothed(found: Mask, excluded: Mask, mpp: float) -> Mask:
    """Gaps between cells closed, lines and slivers removed."""
    filled = closed(found, pixels_of(16, mpp)) & ~excluded
    return opened(filled & ~hair_lines(filled), pixels_of(8, mpp))


def _kept(found: Mask, strong: Mask, coloured: Mask, mpp: float) -> Mask:
    """The fragments with enough strong evidence that have a colour or are thick."""
    labels, count = ndi.label(found, structure=EIGHT_CONNECTED)
    kinds = 4 * labels[found] + 2 * strong[found] + coloured[found]
    counts = np.bincount(kinds, minlength=4 * count + 4).reshape(-1, 4)
    sizes, sure, colour = counts.sum(axis=1), counts[:, 2:].sum(axis=1), counts[:, 1::2].sum(axis=1)
    thick = np.zeros(count + 1, dtype=np.bool_)
    thick[labels[eroded(found, pixels_of(COLOURLESS_UM, mpp))]] = True
    keep = (sure >= MIN_SURE * sizes) & ((colour >= MIN_COLOURED * sizes) | thick)
    keep[0] = False
    return np.asarray(keep[labels])


def _spread(density: Plane) -> Plane:
    red, green, blue = density
    spread: Plane = np.maximum(np.maximum(red, green), blue)
    spread -= np.minimum(np.minimum(red, green), blue)
    return spread
