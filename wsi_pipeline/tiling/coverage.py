"""How much of a box is tissue, exactly.

A mask pixel is a rectangle of level-0 pixels, so the tissue in a box is an area integral. From the summed-area
table of the mask (Crow 1984), interpolated linearly at fractional positions, that integral is exact for
every box, not sampled at a few points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.tissue.mask import TissueMask


def box_coverage(mask: TissueMask, xs: NDArray[np.int64], ys: NDArray[np.int64], side: int) -> NDArray[np.float64]:
    """Tissue fraction of the squares with top-left corners (xs[j], ys[i]) and `side`, in level-0 pixels.

    Returns float64 (len(ys), len(xs)), 0 to 1. Parts beyond the slide count as not tissue.
    """
    # Interpolating the table is separable: first along y at the two edges of each row of boxes, then along x.
    bands = _integral_rows(mask.pixels, ys / mask.scale_y, (ys + side) / mask.scale_y)
    table = np.concatenate([np.zeros((len(ys), 1)), np.cumsum(bands, axis=1)], axis=1)
    columns = np.arange(table.shape[1], dtype=np.float64)
    left, right = xs / mask.scale_x, (xs + side) / mask.scale_x
    area = np.stack([np.interp(right, columns, row) - np.interp(left, columns, row) for row in table])
    full = (side / mask.scale_x) * (side / mask.scale_y)
    return np.clip(area / full, 0.0, 1.0)


def _integral_rows(
    pixels: NDArray[np.bool_], top: NDArray[np.float64], bottom: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Tissue height (mask pixels) in each column between `top` and `bottom`: (len(top), mask width)."""
    height = pixels.shape[0]
    table = np.zeros((height + 1, pixels.shape[1]), dtype=np.int32)
    np.cumsum(pixels, axis=0, dtype=np.int32, out=table[1:])
    return _at(table, bottom, height) - _at(table, top, height)


def _at(table: NDArray[np.int32], position: NDArray[np.float64], height: int) -> NDArray[np.float64]:
    clipped = np.clip(position, 0, height)
    whole = np.minimum(clipped.astype(np.int64), height - 1)
    part = (clipped - whole)[:, None]
    blend: NDArray[np.float64] = table[whole] * (1 - part) + table[whole + 1] * part
    return blend
