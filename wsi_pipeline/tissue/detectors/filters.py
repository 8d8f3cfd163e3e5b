"""Square windows over a plane (h, w), by adding shifted copies: several times faster than general filters here.

A window of radius r is (2 r + 1) pixels wide. At the image edge the edge pixel is repeated, so that tissue cut by
the edge counts as continued.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]
Array = NDArray[Any]


def local_mean(plane: Plane, radius: int) -> Plane:
    """Mean over the window around each pixel, radius at least 1."""
    size = 2 * radius + 1
    for axis in (0, 1):
        padded = _padded(plane, radius, radius, axis)
        length = plane.shape[axis]
        plane = _part(padded, axis, 0, length) + _part(padded, axis, 1, length)
        for shift in range(2, size):
            plane += _part(padded, axis, shift, length)
    plane *= np.float32(1 / size**2)
    return plane


def local_deviation(plane: Plane, radius: int) -> Plane:
    """Standard deviation over the window around each pixel, radius at least 1."""
    mean = local_mean(plane, radius)
    variance = local_mean(plane * plane, radius)
    variance -= mean * mean
    return np.sqrt(np.maximum(variance, 0, out=variance), out=variance)


def local_range(plane: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Largest minus smallest value in the window around each pixel."""
    high, low = plane, plane
    for axis in (0, 1):
        high = _extreme(np.maximum, high, radius, axis)
        low = _extreme(np.minimum, low, radius, axis)
    return np.asarray(high - low)


def dilated(mask: Mask, radius: int) -> Mask:
    """True where any pixel of the window is True."""
    for axis in (0, 1):
        mask = _extreme(np.logical_or, mask, radius, axis)
    return mask


def eroded(mask: Mask, radius: int) -> Mask:
    """True where all pixels of the window are True."""
    for axis in (0, 1):
        mask = _extreme(np.logical_and, mask, radius, axis)
    return mask


def opened(mask: Mask, radius: int) -> Mask:
    """The mask without the parts that no window fits into (opening)."""
    return dilated(eroded(mask, radius), radius)


def closed(mask: Mask, radius: int) -> Mask:
    """The mask with the gaps filled that no window fits into (closing)."""
    return eroded(dilated(mask, radius), radius)


def in_runs(mask: Mask, length: int, axis: int) -> Mask:
    """Pixels of `mask` in runs of at least `length` True pixels along `axis`."""
    padded = _padded(mask, length - 1, length - 1, axis)
    return _joined(np.logical_or, _joined(np.logical_and, padded, length, axis), length, axis)


def shrunk(plane: Plane, factor: int) -> Plane:
    """Means over blocks of factor x factor pixels; a partial last block is padded with its edge."""
    if factor == 1:
        return plane
    for axis in (0, 1):
        padded = _padded(plane, 0, -plane.shape[axis] % factor, axis)
        parts = [padded[(slice(None),) * axis + (slice(shift, None, factor),)] for shift in range(factor)]
        plane = parts[0] + parts[1]
        for part in parts[2:]:
            plane += part
    plane *= np.float32(1 / factor**2)
    return plane


def _extreme(join: Callable[[Array, Array], Array], plane: Array, radius: int, axis: int) -> Array:
    return _joined(join, _padded(plane, radius, radius, axis), 2 * radius + 1, axis)


def _joined(join: Callable[[Array, Array], Array], plane: Array, size: int, axis: int) -> Array:
    """Every `size` neighbours along `axis` joined into one, by doubling spans: shorter by size - 1."""
    span = 1
    while span < size:
        step = min(span, size - span)
        length = plane.shape[axis] - step
        plane = join(_part(plane, axis, 0, length), _part(plane, axis, step, length))
        span += step
    return plane


def _padded(plane: Array, before: int, after: int, axis: int) -> Array:
    widths = [(0, 0), (0, 0)]
    widths[axis] = (before, after)
    return np.pad(plane, widths, mode="edge")


def _part(plane: Array, axis: int, start: int, length: int) -> Array:
    return plane[start : start + length] if axis == 0 else plane[:, start : start + length]
