"""Optical density: how much light the stains absorb, relative to empty glass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WHITE = (255.0, 255.0, 255.0)
STAINED = 0.15
"""Optical density (natural logarithm) in the densest channel from which a pixel counts as stained (Macenko 2009)."""

_BRIGHT, _GREY, _LEAST = 200, 20, 0.01
"""Glass: grey levels of the darkest channel at least; spread of the channels at most; fraction of the picture."""


def density(pixels: NDArray[np.uint8], glass: Floats | tuple[float, ...]) -> Floats:
    """Optical density (N, 3) of pixels uint8 (N, 3): 0 at the colour of the glass, negative where it is brighter.

    One grey level is added to both, so that black has a density too.
    """
    found: Floats = np.log((np.asarray(glass, np.float64) + 1.0) / (pixels.astype(np.float64) + 1.0))
    return found


def stained(densities: Floats) -> NDArray[np.bool_]:
    """Which pixels (N,) are stained rather than glass."""
    found: NDArray[np.bool_] = densities.max(axis=1, initial=-np.inf) > STAINED
    return found


def measure_glass(picture: NDArray[np.uint8], tissue: NDArray[np.bool_] | None = None) -> tuple[tuple[float, ...], str]:
    """Colour of empty glass in a picture uint8 (h, w, 3), and where it is from.

    tissue   bool (h, w): pixels that are not glass

    The median of bright grey pixels outside the tissue. White, (255, 255, 255), if fewer than a hundredth of the
    picture are such pixels.
    """
    flat = picture.reshape(-1, 3)
    low, high = flat.min(axis=1), flat.max(axis=1)
    empty = (low >= _BRIGHT) & (high - low <= _GREY)
    if tissue is not None:
        empty &= ~tissue.reshape(-1)
    if empty.sum() < max(1.0, _LEAST * len(flat)):
        return WHITE, "white"
    return tuple(float(value) for value in np.median(flat[empty], axis=0)), "background"
