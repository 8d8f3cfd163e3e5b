"""Focus: how wide the sharpest edges of a patch are.

An edge blurred by a Gaussian of standard deviation s, blurred once more by a known s1, loses slope by the factor
sqrt(s^2 + s1^2) / s, whatever its contrast, so that s follows from the ratio of slopes before and after (Zhuo and Sim,
Pattern Recognition 44:1852, 2011). Contrast, stain and the amount of structure therefore matter little, unlike for the
variance of the Laplacian. Only the steepest pixels are asked: gentle slopes are the tissue's own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

NOISE_SIGMA, REBLUR_SIGMA = 0.7, 1.4
"""Pixels. The first blur suppresses noise of single pixels and is subtracted again; the second is the known one."""
DIFFERENCE_VARIANCE = 1 / 3
"""Square pixels: a slope is the difference of pixels two apart, which is a blur by a box of that width."""
STEEPEST, SHARPEST = 0.05, 0.25
"""Part of the pixels asked, the steepest ones, and the quantile of their widths that is taken."""
LEAST_SLOPE = 3.0
"""Grey levels per pixel: gentler slopes may be noise, and a patch without steeper ones has no edges to judge by."""
MOST_PX = 256
"""Of larger patches only the middle is looked at, this many pixels a side."""
WIDEST_PX = 8.0
"""Wider edges are hardly changed by the second blur; they count as this wide."""


def edge_width(rgb: NDArray[np.uint8]) -> float:
    """Width of the sharpest edges of a patch uint8 (h, w, 3), in its pixels; NaN without edges to judge by.

    The green channel is used: every stain absorbs it, and JPEG keeps its detail.
    """
    height, width = rgb.shape[:2]
    top, left = max(0, (height - MOST_PX) // 2), max(0, (width - MOST_PX) // 2)
    plane = rgb[top : top + MOST_PX, left : left + MOST_PX, 1].astype(np.float32)
    if min(plane.shape) < 16:
        return float("nan")
    once = _blurred(plane, NOISE_SIGMA)
    before, after = _slope(once), _slope(_blurred(once, REBLUR_SIGMA))
    count = max(1, int(STEEPEST * before.size))
    chosen = np.argpartition(before.ravel(), -count)[-count:]
    steep, gentle = before.ravel()[chosen], after.ravel()[chosen]
    keep = steep >= LEAST_SLOPE
    if np.count_nonzero(keep) < max(8, count // 50):
        return float("nan")
    ratio = np.maximum(steep[keep] / np.maximum(gentle[keep], 1e-6), 1 + 1e-6)
    total = REBLUR_SIGMA / np.sqrt(ratio * ratio - 1)
    own = float(np.quantile(total, SHARPEST)) ** 2 - NOISE_SIGMA**2 - DIFFERENCE_VARIANCE
    return min(WIDEST_PX, math.sqrt(max(0.0, own)))


def _slope(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Length of the gradient of inner pixels, per pixel."""
    across = plane[1:-1, 2:] - plane[1:-1, :-2]
    down = plane[2:, 1:-1] - plane[:-2, 1:-1]
    across *= across
    down *= down
    across += down
    length: NDArray[np.float32] = np.sqrt(across, out=across) * np.float32(0.5)
    return length


def _blurred(plane: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur by shifted copies; the edge pixel is repeated."""
    radius = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights = (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius, radius)
        padded = np.pad(plane, pad, mode="edge")
        length = plane.shape[axis]
        plane = _span(padded, axis, radius, length) * weights[0]
        for shift in range(1, radius + 1):
            both = _span(padded, axis, radius - shift, length) + _span(padded, axis, radius + shift, length)
            both *= weights[shift]
            plane += both
    return plane


def _span(plane: NDArray[np.float32], axis: int, start: int, length: int) -> NDArray[np.float32]:
    return plane[start : start + length] if axis == 0 else plane[:, start : start + length]
