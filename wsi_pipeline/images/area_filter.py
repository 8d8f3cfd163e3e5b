"""The exact area mean of many images of one size, fast: two products with banded matrices.

Every result pixel is the mean of the input area it covers, fractions included, as in `shrink.area_resize`. That
function adds up one image of any size in pieces; this one computes the weights of one geometry once and applies them
with BLAS, in blocks small enough that little of a block is zero.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize

_BLOCK = 8
"""Result rows (or columns) of one product: large enough for BLAS, small enough to skip most zeros."""

_ONE_THREAD = 200_000
"""Largest number of multiplications for which OpenBLAS uses no threads of its own, which would slow the readers."""

_CHANNELS = 3
_FASTER_BELOW = 8
"""Above this shrink the blocks grow too wide to pay off, and the running sums of `area_resize` are as fast."""

Pixels = NDArray[np.uint8]
Weights = NDArray[np.float32]


def block_mean(pixels: Pixels, step: int) -> Pixels:
    """Means of `step` x `step` pixels of (h, w, 3); both sides are multiples of `step`."""
    return pixels if step == 1 else np.asarray(Image.fromarray(pixels).reduce(step))


def area_shrink(pixels: Pixels, side: int) -> Pixels:
    """A square image (n, n, 3) at `side` pixels, n >= side, by area means, accurate to 0.6 grey levels."""
    n = pixels.shape[0]
    if n % side == 0:
        return block_mean(pixels, n // side)
    if n > side * _FASTER_BELOW:
        return area_resize(pixels, Size(side, side))
    work = _WORK.of(n, side)
    np.copyto(work.source, pixels.reshape(n, -1))
    for start, first, weights in _blocks(n, side):
        rows = work.source[first : first + weights.shape[1]]
        for part in _parts(rows.shape[1], weights.size):
            np.matmul(weights, rows[:, part], out=work.middle[start : start + len(weights), part])
    for block, (_, first, weights) in zip(work.blocks, _blocks_of_colours(n, side), strict=True):
        columns = work.middle[:, first : first + len(weights)]
        for part in _parts(side, weights.size):
            np.matmul(columns[part], weights, out=block[part])
    work.blocks += np.float32(0.5)
    out = np.empty((side, side * _CHANNELS), np.uint8)
    for block, (start, _, weights) in zip(work.blocks, _blocks_of_colours(n, side), strict=True):
        out[:, start : start + weights.shape[1]] = block
    return out.reshape(side, side, _CHANNELS)


def _parts(length: int, cost: int) -> list[slice]:
    """Slices of `length` rows (or columns) at `cost` multiplications each, small enough for one thread."""
    step = max(1, _ONE_THREAD // cost)
    return [slice(start, start + step) for start in range(0, length, step)]


class _Memory:
    """Buffers for one image: as floats, with rows reduced, and with columns reduced block by block."""

    def __init__(self, n: int, side: int) -> None:
        self.source = np.empty((n, n * _CHANNELS), np.float32)
        self.middle = np.empty((side, n * _CHANNELS), np.float32)
        width = min(_BLOCK, side)
        self.blocks = np.empty((-(-side // width), side, width * _CHANNELS), np.float32)


class _Memories(threading.local):
    """Each thread's own buffers for the geometry it used last; allocating them per image would cost as much as the
    products."""

    def __init__(self) -> None:
        self.key, self.memory = (0, 0), _Memory(1, 1)

    def of(self, n: int, side: int) -> _Memory:
        """Buffers for reducing n x n pixels to side x side."""
        if self.key != (n, side):
            self.key, self.memory = (n, side), _Memory(n, side)
        return self.memory


_WORK = _Memories()


def area_weights(n: int, side: int) -> NDArray[np.float64]:
    """(side, n): the share of each input pixel in each result pixel; rows add up to 1."""
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
    width = min(_BLOCK, side)
    for start in (*range(0, side - width, width), side - width):  # the last may overlap: all are equally wide
        part = weights[start : start + width]
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
