"""Areas that are not part of the slide: black rectangles around it, and long straight lines along its axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from wsi_pipeline.tissue.detectors.filters import dilated, in_runs, local_range, opened

BLACK = 48
"""Padding has every channel at or below this; so has the darkest tissue, but it is not flat."""
FLAT = 4
"""Padding changes by no more than this, in grey levels, between neighbours."""
LARGE = 0.02
"""A flat black area away from the image edge counts as padding from this fraction of the image on."""
SEAM = 3
"""Width in pixels of the rim that shrinking has mixed with padding."""
LINE_WIDTH, LINE_LENGTH = 5, 60
"""A hair line is at most this wide and at least this long, pixels."""


def padding_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Black padding of `rgb` (h, w, 3) and its seam, bool (h, w): flat, black, at the image edge or large."""
    high = np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])
    dark = high <= BLACK
    if not dark.any():
        return dark
    flat = opened(dark & (local_range(high, 1) <= FLAT), 1)
    labels, count = ndi.label(flat)
    chosen = np.bincount(labels[flat], minlength=count + 1) >= LARGE * dark.size
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        chosen[edge] = True
    chosen[0] = False
    return dilated(chosen[labels], SEAM) if chosen.any() else np.zeros_like(dark)


def hair_lines(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Parts of `mask` (h, w) that are long, thin and level or upright: glass edges, seams, window frames."""
    lines = np.zeros_like(mask)
    for along, across in ((0, 1), (1, 0)):
        if mask.shape[along] >= LINE_LENGTH:
            lines |= in_runs(mask & ~in_runs(mask, LINE_WIDTH + 1, across), LINE_LENGTH, along)
    return lines
