"""How strong the stains are, by separation with fixed vectors, and how colourful the tissue is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

HAEMATOXYLIN, EOSIN, DAB = (0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776)
"""Optical densities of the stains in red, green and blue (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23:291,
2001). Fixed on purpose, so that slides can be compared."""

LEAST_BROWN = 0.02
"""Part of all stain that has to be brown on a slide with DAB."""
FAINTEST = 0.08
"""Paler places (mean density) tell no colour."""
_PINK, _BROWN = (0.6, 0.7), (0.3, 0.95)
"""Red and blue density relative to the green one: below both it is pink, above both brown. Eosin has 0.07 and 0.11 by
its vector, up to 0.55 and 0.65 on real H&E slides; DAB 0.47 and 1.36; red ink 0.1 and 0.9."""
_BLACK, _DARK = 0.92, 0.7
"""Least density of a colour, relative to the greatest and by itself, from which it is black."""


def stain_densities(density: Plane, tissue: NDArray[np.bool_]) -> tuple[Plane, Plane, Plane]:
    """Optical densities of haematoxylin, eosin and DAB, each float32 (h, w), not below 0; 0 outside the tissue.

    density   optical density (3, h, w) in red, green and blue; tissue (h, w)

    A slide has haematoxylin and one of the other two: DAB if it `shows_brown`, else eosin. The third plane is NaN.
    Other dyes are measured as a mixture of these.
    """
    nothing = np.full(tissue.shape, np.nan, np.float32)
    brown = shows_brown(density, tissue)
    # Only the tissue is separated: glass is most of many slides.
    planes = [np.zeros(tissue.shape, np.float32) for _ in range(2)]
    for plane, amounts in zip(planes, _fit(density[:, tissue], DAB if brown else EOSIN), strict=True):
        plane[tissue] = amounts
    first, second = planes
    return (first, nothing, second) if brown else (first, second, nothing)


def shows_brown(density: Plane, tissue: NDArray[np.bool_]) -> bool:
    """Whether more of the stain is brown than pink, and at least LEAST_BROWN of it.

    density   optical density (3, h, w) in red, green and blue; tissue (h, w), without pen

    By colour, not by which of two vectors explains more: eosin absorbs more blue light on real slides than by its
    vector, and fits DAB's as well.
    """
    red, green, blue = (plane[tissue] for plane in density)
    amount = red + green + blue
    amount[amount < 3 * FAINTEST] = 0
    pink = (red < _PINK[0] * green) & (blue < _PINK[1] * green)
    brown = (red > _BROWN[0] * green) & (blue > _BROWN[1] * green)
    # Black is ink, a frame or a shadow.
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    brown &= (low < _BLACK * high) & (low < _DARK)
    parts = [float(amount[which].sum()) for which in (brown, pink)]
    return parts[0] > max(parts[1], LEAST_BROWN * float(amount.sum()))


def colour_saturation(rgb: NDArray[np.uint8]) -> Plane:
    """Saturation of colour as in HSV, float32 (h, w): 0 grey to 1."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    found: Plane = np.divide(high - low, np.maximum(high, 1), dtype=np.float32)
    return found


def _fit(density: Plane, second: tuple[float, float, float]) -> tuple[Plane, Plane]:
    """Least squares of haematoxylin and a second stain, neither below 0."""
    a, b = (np.asarray(vector) / np.linalg.norm(vector) for vector in (HAEMATOXYLIN, second))
    along_a, along_b = (_dot(density, vector) for vector in (a, b))
    overlap = np.float32(a @ b)
    unmixed = np.float32(1) - overlap * overlap
    first = np.asarray((along_a - overlap * along_b) / unmixed, np.float32)
    other = np.asarray((along_b - overlap * along_a) / unmixed, np.float32)
    first, other = (
        np.where(other < 0, along_a, np.maximum(first, 0)),
        np.where(first < 0, along_b, np.maximum(other, 0)),
    )
    return np.maximum(first, np.float32(0)), np.maximum(other, np.float32(0))


def _dot(density: Plane, vector: NDArray[np.floating]) -> Plane:
    red, green, blue = (np.float32(part) for part in vector)
    along: Plane = density[0] * red + density[1] * green + density[2] * blue
    return along
