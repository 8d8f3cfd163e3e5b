"""Dealing groups into stratified parts: arrays of whole numbers in, row positions out.

`labels` and `groups` are integer arrays (n,), codes counted from 0; a group (a patient) is never divided.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

Codes = NDArray[np.int64]

_TRIES = 20
"""Differently seeded StratifiedGroupKFold that are tried before folds are dealt patient by patient."""


def deal_folds(labels: Codes, groups: Codes, n_folds: int, seed: int) -> list[Codes]:
    """Test rows (ascending) of each fold: groups undivided, labels spread evenly, every fold non-empty.

    The first candidate whose every fold holds every class is taken, else the one with fewest gaps.
    `n_folds` must not exceed the number of groups.
    """
    tried: list[list[Codes]] = []
    for folds in _candidates(labels, groups, n_folds, seed):
        tried.append(folds)
        if _gaps(labels, folds) == (0, 0):
            return folds
    return min(tried, key=lambda folds: _gaps(labels, folds))


def hold_out(labels: Codes, groups: Codes, fraction: float, seed: np.random.SeedSequence) -> NDArray[np.bool_]:
    """Choose about `fraction` of the groups of every stratum: True for the chosen rows, (n,).

    A stratum is the groups with the same set of labels. Strata of two or more groups give at least one and
    keep at least one, so a class is never taken from training altogether; a group alone in its stratum stays.
    """
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    strata = _strata(labels, groups)
    for stratum in sorted(set(strata.values())):
        members = [group for group, found in strata.items() if found == stratum]
        n = min(max(round(fraction * len(members)), 1), len(members) - 1)
        chosen += [int(group) for group in rng.permutation(members)[:n]]
    return np.isin(groups, chosen)


def _candidates(labels: Codes, groups: Codes, n_folds: int, seed: int) -> Iterator[list[Codes]]:
    """Folds to choose from, best method first; the last one always works."""
    if np.bincount(labels).max() >= n_folds:
        for state in np.random.SeedSequence(seed).generate_state(_TRIES):
            splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=int(state))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds: stated by the caller
                yield [np.sort(test).astype(np.int64) for _, test in splitter.split(labels, labels, groups)]
    yield _dealt(labels, groups, n_folds, np.random.default_rng(seed))


def _dealt(labels: Codes, groups: Codes, n_folds: int, rng: np.random.Generator) -> list[Codes]:
    """Deal the groups like cards, stratum after stratum: one with n_folds groups or more reaches every fold."""
    strata = _strata(labels, groups)
    shuffled = [int(group) for group in rng.permutation(sorted(strata))]
    deck = sorted(shuffled, key=lambda group: strata[group])
    return [np.flatnonzero(np.isin(groups, deck[k::n_folds])) for k in range(n_folds)]


def _strata(labels: Codes, groups: Codes) -> dict[int, tuple[int, ...]]:
    """Group -> its labels, each once, ascending."""
    return {
        int(group): tuple(int(label) for label in np.unique(labels[groups == group])) for group in np.unique(groups)
    }


def _gaps(labels: Codes, folds: list[Codes]) -> tuple[int, int]:
    """How many folds are empty, and how many (fold, class) pairs have no row."""
    n_classes = len(np.unique(labels))
    return sum(len(rows) == 0 for rows in folds), sum(n_classes - len(np.unique(labels[rows])) for rows in folds)
