"""Remove small fragments and fill small holes of a mask, by area in square micrometres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from wsi_pipeline.errors import WsiPipelineError

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
"""Tissue pixels that touch at a corner are one fragment, hence holes are 4-connected."""


def clean_mask(
    mask: NDArray[np.bool_], pixel_um2: float, min_tissue_um2: float, max_hole_um2: float
) -> NDArray[np.bool_]:
    """Fill the holes of a mask (h, w) that are smaller than a limit, then drop fragments smaller than another.

    pixel_um2        area of one mask pixel, square micrometres
    min_tissue_um2   8-connected tissue fragments below this are removed; 0 keeps all
    max_hole_um2     4-connected holes below this are filled; 0 fills none. A gap open to the image edge is not a hole

    Returns a new mask. Cleaning it again changes nothing. Raises WsiPipelineError for a pixel area that is not
    positive or a negative limit.
    """
    if not pixel_um2 > 0:
        raise WsiPipelineError(f"pixel_um2 must be > 0, got {pixel_um2}")
    for field, limit in (("min_tissue_um2", min_tissue_um2), ("max_hole_um2", max_hole_um2)):
        if not limit >= 0:
            raise WsiPipelineError(f"{field} must be >= 0, got {limit}")
    return drop_small(fill_small_holes(mask, max_hole_um2 / pixel_um2), min_tissue_um2 / pixel_um2)


def drop_small(mask: NDArray[np.bool_], min_pixels: float) -> NDArray[np.bool_]:
    """A copy of `mask` without the 8-connected fragments of fewer than `min_pixels` pixels."""
    if min_pixels <= 1:
        return mask.copy()
    labels, count = ndi.label(mask, structure=EIGHT_CONNECTED)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_pixels
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)


def fill_small_holes(mask: NDArray[np.bool_], min_pixels: float) -> NDArray[np.bool_]:
    """A copy of `mask` with the enclosed 4-connected holes of fewer than `min_pixels` pixels filled."""
    if min_pixels <= 1:
        return mask.copy()
    labels, count = ndi.label(~mask)
    fill = np.bincount(labels.ravel(), minlength=count + 1) < min_pixels
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        fill[edge] = False
    fill[0] = True
    return np.asarray(fill[labels], dtype=np.bool_)
