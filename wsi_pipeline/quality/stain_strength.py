"""How strong the stains are, by separation with fixed vectors, and how colourful the tissue is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

HAEMATOXYLIN, EOSIN, DAB = (0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776)
"""Optical densities of the stains in red, green and blue (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23:291,
2001). Fixed on purpose, so that slides can be compared."""


def stain_densities(density: Plane, tissue: NDArray[np.bool_]) -> tuple[Plane, Plane, Plane]:
    """Optical densities of haematoxylin, eosin and DAB, each float32 (h, w), not below 0.

    density   optical density (3, h, w) in red, green and blue; tissue (h, w)

    A slide has haematoxylin and one of the other two: the one with which the tissue is explained better. The third
    plane is NaN. Other dyes are measured as a mixture of these.
    """
    fits = [_fit(density, second) for second in (EOSIN, DAB)]
    rests = [float(rest[tissue].sum()) for _, _, rest in fits]
    nothing = np.full(tissue.shape, np.nan, np.float32)
    if rests[1] < rests[0]:
        return fits[1][0], nothing, fits[1][1]
    return fits[0][0], fits[0][1], nothing


def colour_saturation(rgb: NDArray[np.uint8]) -> Plane:
    """Saturation of colour as in HSV, float32 (h, w): 0 grey to 1."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    found: Plane = np.divide(high - low, np.maximum(high, 1), dtype=np.float32)
    return found


def _fit(density: Plane, second: tuple[float, float, float]) -> tuple[Plane, Plane, Plane]:
    """Least squares of haematoxylin and a second stain, neither below 0, and the squared rest."""
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
    first, other = np.maximum(first, np.float32(0)), np.maximum(other, np.float32(0))
    rest = sum((plane - np.float32(x) * first - np.float32(y) * other) ** 2
               for plane, x, y in zip(density, a, b, strict=True))  # fmt: skip
    return first, other, np.asarray(rest, np.float32)


def _dot(density: Plane, vector: NDArray[np.floating]) -> Plane:
    red, green, blue = (np.float32(part) for part in vector)
    along: Plane = density[0] * red + density[1] * green + density[2] * blue
    return along
