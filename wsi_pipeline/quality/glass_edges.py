"""Rims of air bubbles and edges of the cover glass: long, thin, dark lines without colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from wsi_pipeline.tissue.cleanup import EIGHT_CONNECTED
from wsi_pipeline.tissue.detectors.filters import dilated, local_mean
from wsi_pipeline.tissue.detectors.optics import pixels_of

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

AROUND_UM = 80.0
"""Radius of the surroundings that a line is compared with."""
DARKER = 0.16
"""Mean density by which a line exceeds its surroundings."""
COLOURLESS = 0.45
"""Largest difference of what the line adds in red, green and blue, relative to the mean of the three."""
LONGEST_UM = 700.0
"""Least extent of a line."""
WIDEST_UM = 70.0
"""Largest area of a line per extent: its width."""


def edge_mask(density: Plane, mpp: float) -> Mask:
    """Where such a line runs, bool (h, w), one pixel wider on both sides.

    density   optical density (3, h, w) at `mpp` micrometres per pixel
    """
    added = np.stack([plane - local_mean(plane, pixels_of(AROUND_UM, mpp)) for plane in density])
    total = added.mean(axis=0)
    maybe: NDArray[np.bool_] = (total > DARKER) & (added.max(axis=0) - added.min(axis=0) < COLOURLESS * total)
    labels, count = ndi.label(maybe, EIGHT_CONNECTED)
    if count == 0:
        return maybe
    areas = np.bincount(labels.ravel(), minlength=count + 1) * mpp**2
    keep = np.zeros(count + 1, np.bool_)
    for number, box in enumerate(ndi.find_objects(labels), 1):
        extent = np.hypot(*(side.stop - side.start for side in box)) * mpp
        keep[number] = extent >= LONGEST_UM and areas[number] <= WIDEST_UM * extent * 2
    return dilated(keep[labels], 1)
