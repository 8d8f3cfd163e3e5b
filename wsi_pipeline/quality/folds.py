"""Folds: tissue that lies double is about twice as dense as the tissue around it, in every colour.

Nuclei that crowd together raise mainly the density of haematoxylin, blood that of eosin; so all colours have to rise,
and by nearly the same factor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.tissue.detectors.filters import local_mean, shrunk
from wsi_pipeline.tissue.detectors.optics import pixels_of

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

AROUND_UM = 480.0
"""Radius of the tissue that a place is compared with."""
COARSE_UM = 96.0
"""Pixel size at which that tissue is averaged."""
SMOOTH_UM = 16.0
"""Radius over which density is averaged first: texture is finer, folds are wider."""
DOUBLE = 1.6
"""Least ratio to the tissue around, in the colour that rises least."""
MANY = 3.2
"""Largest ratio: tissue seldom lies more than threefold, but DAB is many times as dense as the tissue around it."""
ALIKE = 1.15
"""Largest ratio between the colours that rise most and least: what tells folds from crowded nuclei and from blood."""
LEAST_DENSITY = 0.10
"""Paler places never count as folds, whatever the ratio."""
FAINTEST = 0.03
"""Density of the tissue around counts as at least this much."""


def fold_mask(density: Plane, tissue: Mask, mpp: float) -> Mask:
    """Where tissue is folded, bool (h, w).

    density   optical density (3, h, w) at `mpp` micrometres per pixel; tissue (h, w)
    """
    if not tissue.any():
        return np.zeros_like(tissue)
    inside = tissue.astype(np.float32)
    factor = pixels_of(COARSE_UM, mpp)
    radius, smooth = pixels_of(AROUND_UM, factor * mpp), pixels_of(SMOOTH_UM, mpp)
    share = np.maximum(local_mean(shrunk(inside, factor), radius), 1e-3)
    near = np.maximum(local_mean(inside, smooth), 0.2)
    least, most = np.full(tissue.shape, np.inf, np.float32), np.zeros(tissue.shape, np.float32)
    total = np.zeros(tissue.shape, np.float32)
    for plane in density:
        plane = plane * inside
        around = np.maximum(local_mean(shrunk(plane, factor), radius) / share, FAINTEST)
        here = local_mean(plane, smooth) / near
        total += here
        here /= around.repeat(factor, axis=0).repeat(factor, axis=1)[: tissue.shape[0], : tissue.shape[1]]
        np.minimum(least, here, out=least)
        np.maximum(most, here, out=most)
    alike = (most < MANY) & (most < ALIKE * least)
    return tissue & (least > DOUBLE) & alike & (total > 3 * LEAST_DENSITY)
