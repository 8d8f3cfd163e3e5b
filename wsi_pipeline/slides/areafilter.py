"""The exact area mean of many images of one size, fast: two products with banded matrices.

Every result pixel is the mean of the input area it covers, fractions included, as in `shrink.area_resize`. There one
image of any size is added up in pieces; here the weights of one geometry are made once and applied with BLAS, in blocks
small enough that little of a block is zero.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.shrink import area_resize

_BLOCK = 16
"""Result rows (or columns) of one product: large enough for BLAS, small enough to skip most zeros."""

_CHANNELS = 3
_FASTER_BELOW = 8
"""Above this shrink the blocks grow too wide to pay, and the running sums of `area_resize` are as good."""

Pixels = NDArray[np.uint8]
Weights = NDArray[np.float32]


def block_mean(pixels: Pixels, step: int) -> Pixels:
    """Means of `step` x `step` pixels of (h, w, 3); both sides are multiples of `step`."""
    return pixels if step == 1 else np.asarray(Image.fromarray(pixels).reduce(step))


def area_shrink(pixels: Pixels, side: int) -> Pixels:
    """A square image (n, n, 3) at `side` pixels, n >= side, by exact area means, to half a grey value."""
    n = pixels.shape[0]
    if n % side == 0:
        return block_mean(pixels, n // side)
    if n > side * _FASTER_BELOW:
        return area_resize(pixels, Size(side, side))
    rows, columns = _blocks(n, side), _blocks_of_colours(n, side)
    source = pixels.reshape(n, -1).astype(np.float32)
    middle = np.empty((side, n * _CHANNELS), np.float32)
    for start, first, weights in rows:
        np.matmul(weights, source[first : first + weights.shape[1]], out=middle[start : start + weights.shape[0]])
    out = np.empty((side, side * _CHANNELS), np.float32)
    for start, first, weights in columns:
        np.matmul(middle[:, first : first + weights.shape[0]], weights, out=out[:, start : start + weights.shape[1]])
    out += np.float32(0.5)
    return out.astype(np.uint8).reshape(side, side, _CHANNELS)


def area_weights(n: int, side: int) -> NDArray[np.float64]:
    """(side, n): how much of each result pixel each input pixel makes up; rows add up to 1."""
    edges = np.arange(side + 1) * n / side
    pixel = np.arange(n)[None]
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights: NDArray[np.float64] = np.clip(overlap, 0, None) * side / n
    return weights


@lru_cache(maxsize=8)
def _blocks(n: int, side: int) -> tuple[tuple[int, int, Weights], ...]:
    """(first result row, first input row, weights (result rows, input rows)) of each block."""
    weights = area_weights(n, side)
    blocks = []
    for start in range(0, side, _BLOCK):
        part = weights[start : start + _BLOCK]
        used = np.flatnonzero(part.any(axis=0))
        part = part[:, used[0] : used[-1] + 1]
        blocks.append((start, int(used[0]), np.ascontiguousarray(part, np.float32)))
    return tuple(blocks)


@lru_cache(maxsize=8)
def _blocks_of_colours(n: int, side: int) -> tuple[tuple[int, int, Weights], ...]:
    """The same for columns whose three colours lie side by side: (first value out, first value in, weights)."""
    colours = np.eye(_CHANNELS, dtype=np.float32)
    return tuple(
        (start * _CHANNELS, first * _CHANNELS, np.ascontiguousarray(np.kron(weights.T, colours)))
        for start, first, weights in _blocks(n, side)
    )
