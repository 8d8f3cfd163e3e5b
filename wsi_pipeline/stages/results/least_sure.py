"""Which patches to label next: those a classifier is least sure of, spread over slides and within each slide.

Used by the viewer (what to mark next) and by `tune --suggest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

APART = 4
"""Two patches of one slide are at least this many patches apart."""
_LOOKED_AT = 400


@dataclass(frozen=True, eq=False)
class SlidePatchClasses:
    """One slide: probabilities float32 (N, C), coords int64 (N, 2) and `side` in level-0 pixels, rows with a label."""

    probabilities: NDArray[np.float32]
    coords: NDArray[np.int64]
    side: int
    labelled: Sequence[int] = ()


@dataclass(frozen=True)
class UnsurePatch:
    """A patch: place of its slide in the list given, row, and its doubt from 0 (sure) to 1."""

    slide: int
    row: int
    doubt: float


def least_sure(slides: Sequence[SlidePatchClasses], count: int) -> list[UnsurePatch]:
    """Up to `count` patches without a label, in order of decreasing doubt; the same number of each slide if possible.

    Slides take turns, and in each turn the slide with the most doubtful patch comes first: so that a single odd slide
    does not get all labels.
    """
    each = []
    for number, slide in enumerate(slides):
        doubts = doubt(slide.probabilities)
        doubts[list(slide.labelled)] = -1
        rows = spread_out(doubts, slide.coords, APART * slide.side, most=count)
        each.append([UnsurePatch(number, row, float(doubts[row])) for row in rows])
    chosen: list[UnsurePatch] = []
    for turn in range(count):
        chosen += sorted((own[turn] for own in each if turn < len(own)), key=_most_doubtful)
        if len(chosen) >= count:
            break
    return sorted(chosen[:count], key=_most_doubtful)


def doubt(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 minus the margin between the two most likely classes, (N,), from probabilities (N, C)."""
    if not len(probabilities) or probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    top = np.sort(probabilities.astype(np.float64), axis=1)
    return np.asarray(1 - (top[:, -1] - top[:, -2]))


def spread_out(values: NDArray[np.float64], coords: NDArray[np.int64], apart: int, most: int) -> list[int]:
    """Rows by decreasing value, each at least `apart` level-0 pixels from earlier ones, without negative values."""
    chosen: list[int] = []
    for row in np.argsort(-values, kind="stable")[:_LOOKED_AT].tolist():
        if values[row] < 0 or len(chosen) >= most:
            break
        near = [other for other in chosen if np.abs(coords[row] - coords[other]).max() < apart]
        if not near:
            chosen.append(row)
    return chosen


def _most_doubtful(patch: UnsurePatch) -> float:
    return -patch.doubt
