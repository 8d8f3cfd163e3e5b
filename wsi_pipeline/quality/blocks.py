"""JPEG blocks: steps at the borders of the blocks that JPEG compresses by themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

JPEG_BLOCK = 8
LEAST_STEP = 0.05
"""Grey levels added to the steps elsewhere, so that flat pictures do not divide by zero."""


def blockiness(rgb: NDArray[np.uint8]) -> float:
    """Excess of steps at block borders over steps elsewhere, of a patch uint8 (h, w, 3): 0 none, 1 twice as large.

    Only for pixels as they are stored: shrinking by two hides even the blocks of strong compression. A step is the
    difference across a possible border minus those on both sides of it; where the grid begins is found by the largest
    mean. NaN for patches of fewer than four blocks a side.
    """
    if min(rgb.shape[:2]) < 4 * JPEG_BLOCK:
        return float("nan")
    plane = rgb[..., 1].astype(np.int16)
    return max(0.0, (_excess(plane) + _excess(plane.T)) / 2)


def _excess(lines: NDArray[np.int16]) -> float:
    """The same for the borders between columns."""
    before, left, right, after = lines[:, :-3], lines[:, 1:-2], lines[:, 2:-1], lines[:, 3:]
    beside = (np.abs(left - before) + np.abs(after - right)) / np.float32(2)
    excess = (np.abs(right - left) - beside).mean(axis=0)
    usable = len(excess) // JPEG_BLOCK * JPEG_BLOCK
    by_phase = excess[:usable].reshape(-1, JPEG_BLOCK).mean(axis=0)
    return float((by_phase.max() - np.median(by_phase)) / (float(beside.mean()) + LEAST_STEP))
