"""Choosing groups to hold out: whole numbers in, True and False out.

scikit-learn's StratifiedGroupKFold deals the groups; the deal whose held-out part is nearest to the fraction, class
by class, is taken. Where no deal leaves every class on both sides, groups are picked class by class.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from wsi_pipeline.labelled.labelled_patches import Rows

Chosen = NDArray[np.bool_]

_MOST_FOLDS = 10
_DEALS, _PICKS = 6, 200
_GROUPS_AT_ONCE = 20_000
"""StratifiedGroupKFold takes about 0.1 ms per group and fold: with many groups, one deal is as good as six."""

_GOOD_MISS = 0.03
"""A held-out part this near to the fraction, averaged over classes, needs no further search."""

_TIE = 0.01


def hold_out_groups(labels: Rows, groups: Rows, fraction: float, reserve: int, seed: tuple[int, ...]) -> Chosen | None:
    """Choose groups that hold about `fraction` of the rows of every class: True for their rows, (n,).

    labels, groups   int64 (n,), whole numbers from 0
    reserve          groups of every class that must stay

    Every class is in the chosen part and keeps `reserve` groups outside it. None where no such choice is found.
    """
    rng = np.random.default_rng(seed)
    fair: list[tuple[float, Chosen]] = []
    for candidates in (_dealt(labels, groups, fraction, rng), _picked(labels, groups, fraction, reserve, rng)):
        for chosen in candidates:
            if _is_fair(labels, groups, chosen, reserve):
                fair.append((_miss(labels, chosen, fraction), chosen))
                if fair[-1][0] <= _TIE:
                    return chosen
        if min((miss for miss, _ in fair), default=1.0) <= _GOOD_MISS:
            break
    if not fair:
        return None
    best = min(miss for miss, _ in fair)
    near = [chosen for miss, chosen in fair if miss <= best + _TIE]
    return near[int(rng.integers(len(near)))]  # other seeds give other splits where several are as good


def _dealt(labels: Rows, groups: Rows, fraction: float, rng: np.random.Generator) -> Iterator[Chosen]:
    """Neighbouring folds of scikit-learn's deals, several deals with different shuffles."""
    count = len(np.unique(groups))
    folds, held = _folds(fraction, count)
    if folds < 2 or np.bincount(labels).max() < folds:
        return
    splitter = StratifiedKFold if count == len(groups) else StratifiedGroupKFold
    for state in rng.integers(0, 1 << 31, max(1, min(_DEALS, _GROUPS_AT_ONCE // count))).tolist():
        fold_of = np.zeros(len(labels), np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds: judged by the caller
            dealt = splitter(folds, shuffle=True, random_state=state).split(labels, labels, groups)
            for number, (_, rows) in enumerate(dealt):
                fold_of[rows] = number
        for first in range(folds):
            yield (fold_of - first) % folds < held


def _folds(fraction: float, groups: int) -> tuple[int, int]:
    """(number of folds, how many of them to hold out) whose ratio is nearest to `fraction`, few folds first."""
    pairs = [(k, held) for k in range(2, min(_MOST_FOLDS, groups) + 1) for held in range(1, k)]
    return min(pairs, key=lambda pair: (round(abs(pair[1] / pair[0] - fraction), 3), pair[0]), default=(0, 0))


def _picked(labels: Rows, groups: Rows, fraction: float, reserve: int, rng: np.random.Generator) -> Iterator[Chosen]:
    """Groups picked one by one in random orders: for few or mixed groups, which folds do not fit."""
    names, codes = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(table, (codes, labels), 1)
    for _ in range(max(2, min(_PICKS, _GROUPS_AT_ONCE // len(names)))):
        yield _pick(table, fraction, reserve, rng)[codes]


def _pick(table: Rows, fraction: float, reserve: int, rng: np.random.Generator) -> Chosen:
    """Take a group of each class, the rarest class first, then others while they bring the sizes nearer.

    table   rows of each group (G) and class (C)
    """
    has = table > 0
    taken, left = np.zeros(len(table), np.bool_), has.sum(axis=0)
    now, target = np.zeros(table.shape[1]), fraction * table.sum(axis=0)

    def take(group: int) -> bool:
        """Take a group if every class of it keeps its reserve; whether it was taken."""
        fits = bool((left[has[group]] > reserve).all()) and not taken[group]
        if fits:
            taken[group] = True
            left[has[group]] -= 1
            now[:] += table[group]
        return fits

    for label in np.argsort(left, kind="stable"):
        if left[label] and not now[label]:
            any(take(int(group)) for group in rng.permutation(np.flatnonzero(has[:, label])))
    for group in rng.permutation(len(table)).tolist():
        if np.abs(now + table[group] - target).sum() < np.abs(now - target).sum():
            take(group)
    return taken


def _is_fair(labels: Rows, groups: Rows, chosen: Chosen, reserve: int) -> bool:
    """Whether every class is among the chosen and keeps `reserve` groups among the others."""
    classes = np.unique(labels)
    if len(np.unique(labels[chosen])) < len(classes):
        return False
    kept = np.unique(np.stack([labels[~chosen], groups[~chosen]]), axis=1)[0]
    return bool((np.bincount(kept, minlength=classes.max() + 1)[classes] >= reserve).all())


def _miss(labels: Rows, chosen: Chosen, fraction: float) -> float:
    """How far the chosen part of each class is from `fraction`, averaged over classes."""
    total, held = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    there = total > 0
    return float(np.abs(held[there] / total[there] - fraction).mean())
