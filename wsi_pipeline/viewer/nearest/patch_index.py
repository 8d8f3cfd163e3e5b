"""An index of very many patches: rows in lists around centres, of which a search reads the nearest lists only.

This is the inverted file of Sivic and Zisserman (ICCV 2003) with distances computed from the features themselves, so
that what is found has its exact distance and only the choice of lists can miss something. The lists of each slide are
kept on their own: after a change only new and changed slides are assigned. The centres are recomputed once more than a
quarter of the rows belongs to slides that they were not computed from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.viewer.nearest.kept_arrays import load_arrays, save_arrays

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

ROWS_PER_LIST = 1000
MOST_LISTS = 4096
PART_SEARCHED = 16
"""One in so many lists is read, but not fewer than LEAST_LISTS."""
LEAST_LISTS = 24
_SAMPLE_PER_LIST = 60
_ROUNDS = 8
_BLOCK = 16_384
_NEW_PART = 0.25


@dataclass(frozen=True, eq=False)
class PatchIndex:
    """An index over features (N, D).

    weights   (D,) factors of the features before distances are computed
    centres   (L, D) of weighted features
    lists     (N,) uint16: list of each row
    rows      row numbers list by list; list k is rows[starts[k]:starts[k + 1]]
    """

    weights: Floats
    centres: Floats
    lists: NDArray[np.uint16]
    rows: Rows
    starts: Rows

    @classmethod
    def of(cls, weights: Floats, centres: Floats, lists: NDArray[np.uint16]) -> PatchIndex:
        """The index of rows whose lists are known."""
        rows = np.argsort(lists, kind="stable").astype(np.int64)
        starts = np.concatenate(([0], np.cumsum(np.bincount(lists, minlength=len(centres))))).astype(np.int64)
        return cls(weights, centres, lists, rows, starts)

    @property
    def searched(self) -> int:
        """How many lists a search reads."""
        return min(len(self.centres), max(LEAST_LISTS, len(self.centres) // PART_SEARCHED))

    def nearest(
        self, features: NDArray[Any], query: int, count: int, left_out: tuple[int, int, NDArray[np.bool_]]
    ) -> tuple[Rows, Floats]:
        """(rows, squared distances) of the up to `count` rows nearest to row `query`, nearest first.

        left_out   (first, end, mask): of rows first to end those where the mask is true are not returned

        If most of a list is left out, further lists are read until `count` rows are found.
        """
        first, end, mask = left_out
        wanted = features[query].astype(np.float32) * self.weights
        order = np.argsort(((self.centres - wanted) ** 2).sum(axis=1), kind="stable")
        found: list[Rows] = []
        for number, k in enumerate(order):
            if number >= self.searched and sum(map(len, found)) >= count:
                break
            rows = self.rows[self.starts[k] : self.starts[k + 1]]
            own = (rows >= first) & (rows < end)
            keep = ~own
            keep[own] = ~mask[rows[own] - first]
            found.append(rows[keep])
        rows = np.sort(np.concatenate(found))
        distances = np.concatenate([_away(features[rows[at]], wanted, self.weights) for at in _blocks(len(rows))])
        count = min(count, len(rows))
        near = np.argpartition(distances, count - 1)[:count] if count else np.zeros(0, np.int64)
        near = near[np.argsort(distances[near], kind="stable")]
        return rows[near], distances[near]


def make_index(features: NDArray[Any], weights: Floats, seed: int = 0) -> PatchIndex:
    """Centres by k-means of a sample of the rows, and the list of every row."""
    count = int(np.clip(round(len(features) / ROWS_PER_LIST), 1, MOST_LISTS))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(features), min(len(features), count * _SAMPLE_PER_LIST), replace=False))
    sample = features[chosen].astype(np.float32) * weights
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(_ROUNDS):
        lists = _assigned(sample, centres)
        held = np.bincount(lists, minlength=count)
        order = np.argsort(lists, kind="stable")
        filled = np.flatnonzero(held)
        sums = np.add.reduceat(sample[order], np.concatenate(([0], np.cumsum(held[filled])[:-1])), axis=0)
        centres = centres.copy()
        centres[filled] = sums / held[filled, None]
        empty = np.flatnonzero(held == 0)  # an empty list takes a row of the sample, so that no list is wasted
        centres[empty] = sample[rng.choice(len(sample), len(empty), replace=False)]
    return PatchIndex.of(weights, centres, assign(features, weights, centres))


def assign(features: NDArray[Any], weights: Floats, centres: Floats) -> NDArray[np.uint16]:
    """Number of the nearest centre of each row (N,)."""
    out = np.empty(len(features), np.uint16)
    for at in _blocks(len(features)):
        out[at] = _assigned(features[at].astype(np.float32) * weights, centres)
    return out


def kept_index(
    path: Path, names: Sequence[str], features: NDArray[Any], offsets: Rows, weights: Floats
) -> tuple[PatchIndex, int]:
    """The index in `path` brought up to date with the features of `names`, written back if it changed.

    names     one per slide, different after every change of its features; offsets (B + 1,) of its rows

    Returns the index and how many slides had to be assigned. A damaged or foreign file is replaced.
    """
    known = _load(path, features.shape[1])
    fresh = [name for name in names if known is None or name not in known[3]]
    rows = {name: int(offsets[k + 1] - offsets[k]) for k, name in enumerate(names)}
    if known is None or sum(rows[name] for name in names if name not in known[2]) > _NEW_PART * len(features):
        index = make_index(features, weights)
        _save(path, index, names, set(names), offsets)
        return index, len(names)
    weights, centres, made_from, lists = known
    parts = [
        lists[name] if name in lists and len(lists[name]) == rows[name]
        else assign(features[offsets[k] : offsets[k + 1]], weights, centres)
        for k, name in enumerate(names)
    ]  # fmt: skip
    index = PatchIndex.of(weights, centres, np.concatenate(parts))
    if fresh or len(lists) != len(names):
        _save(path, index, names, made_from, offsets)
    return index, len(fresh)


def _load(path: Path, dim: int) -> tuple[Floats, Floats, set[str], dict[str, NDArray[np.uint16]]] | None:
    """(weights, centres, slides they were made from, slide -> lists of its rows), or None."""
    kept = load_arrays(path, ("weights", "centres", "lists", "ends", "names", "made_from"))
    if kept is None:
        return None
    weights, centres, lists, ends = kept[:4]
    names, made_from = kept[4].tolist(), set(kept[5].tolist())
    whole = len(ends) == len(names) and (not len(ends) or ends[-1] == len(lists))
    if not whole or weights.shape != (dim,) or centres.ndim != 2 or centres.shape[1] != dim:
        return None
    if not len(centres) or (len(lists) and int(lists.max()) >= len(centres)):
        return None
    return weights, centres, made_from, dict(zip(names, np.split(lists, ends[:-1]), strict=True))


def _save(path: Path, index: PatchIndex, names: Sequence[str], made_from: set[str], offsets: Rows) -> None:
    named = {"names": np.array(list(names), np.str_), "made_from": np.array(sorted(made_from), np.str_)}
    arrays: dict[str, NDArray[Any]] = {
        "weights": index.weights,
        "centres": index.centres,
        "lists": index.lists,
        "ends": offsets[1:],
    }
    save_arrays(path, {**arrays, **named})


def _assigned(block: Floats, centres: Floats) -> NDArray[np.uint16]:
    scores = block @ centres.T
    scores -= (centres**2).sum(axis=1) / 2
    return np.asarray(scores.argmax(axis=1), np.uint16)


def _away(block: NDArray[Any], wanted: Floats, weights: Floats) -> Floats:
    return np.asarray(((block.astype(np.float32) * weights - wanted) ** 2).sum(axis=1), np.float32)


def _blocks(rows: int) -> list[slice]:
    return [slice(first, min(rows, first + _BLOCK)) for first in range(0, max(rows, 1), _BLOCK)]
