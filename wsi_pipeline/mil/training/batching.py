"""Bags in batches that fit in memory, whatever their sizes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.mil.bags import BagBatch, Bags

MAX_INSTANCES = 65_536
"""Most instances in a batch; a larger bag is a batch of its own. In training a few hundred MB at 256 hidden values."""


def pieces(bags: Bags, indices: NDArray[np.int64]) -> Iterator[BagBatch]:
    """The bags at `indices`, in order, in batches of at most MAX_INSTANCES instances."""
    for chosen in cut(bags.lengths[indices], MAX_INSTANCES):
        yield from bags.batches(indices[chosen], len(indices))


def sampled_pieces(bags: Bags, indices: NDArray[np.int64], limit: int, rng: np.random.Generator) -> Iterator[BagBatch]:
    """`pieces` with at most `limit` instances per bag, drawn from `rng`; 0: all."""
    if limit == 0:
        yield from pieces(bags, indices)
        return
    for chosen in cut(bags.lengths[indices].clip(max=limit), MAX_INSTANCES):
        yield bags.sampled(indices[chosen], limit, rng)


def cut(lengths: NDArray[np.int64], limit: int) -> Iterator[slice]:
    """Consecutive slices of a sequence of lengths, each with a sum of at most `limit`, or a single larger length."""
    start, total = 0, 0
    for position, length in enumerate(lengths.tolist()):
        if position > start and total + length > limit:
            yield slice(start, position)
            start, total = position, 0
        total += length
    if len(lengths) > start:
        yield slice(start, len(lengths))
