"""Stratified folds and held-out parts of whole groups: arrays of whole numbers in, rows out.

`labels` and `groups` are integer arrays (n,), codes from 0; a group (a patient) is never divided. For slides a fraction
of the patients of each class is held out (`hold_out_per_stratum`); for patches, whose groups differ in size, the groups
whose patches come nearest to the wanted fraction (`hold_out_groups`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]

_TRIES = 20
"""Seeds of StratifiedGroupKFold tried before groups are distributed one by one."""

Chosen = NDArray[np.bool_]

_MOST_FOLDS = 10
_SHUFFLES, _PICKS = 6, 200
_GROUPS_AT_ONCE = 20_000
"""StratifiedGroupKFold takes about 0.1 ms per group and fold: with many groups, one shuffle is as good as six."""

_GOOD_MISS = 0.03
"""Deviation from the fraction, averaged over classes, below which the search ends."""

_TIE = 0.01


def stratified_folds(labels: Codes, groups: Codes, n_folds: int, seed: int) -> list[Codes]:
    """Test rows (ascending) of each fold: groups undivided, labels spread evenly, every fold non-empty.

    The first candidate whose every fold holds every class is taken, else the one with fewest gaps.
    `n_folds` must not exceed the number of groups.
    """
    tried: list[list[Codes]] = []
    for folds in _candidates(labels, groups, n_folds, seed):
        tried.append(folds)
        if fold_gaps(labels, folds) == (0, 0):
            return folds
    return min(tried, key=lambda folds: fold_gaps(labels, folds))


def hold_out_per_stratum(
    labels: Codes, groups: Codes, fraction: float, seed: np.random.SeedSequence
) -> NDArray[np.bool_]:
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
        from sklearn.model_selection import StratifiedGroupKFold  # takes two seconds

        for state in np.random.SeedSequence(seed).generate_state(_TRIES):
            splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=int(state))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds: stated by the caller
                yield [np.sort(test).astype(np.int64) for _, test in splitter.split(labels, labels, groups)]
    yield _round_robin(labels, groups, n_folds, np.random.default_rng(seed))


def _round_robin(labels: Codes, groups: Codes, n_folds: int, rng: np.random.Generator) -> list[Codes]:
    """Groups go to the folds in turn, stratum by stratum: one with n_folds groups or more reaches every fold."""
    strata = _strata(labels, groups)
    shuffled = [int(group) for group in rng.permutation(sorted(strata))]
    deck = sorted(shuffled, key=lambda group: strata[group])
    return [np.flatnonzero(np.isin(groups, deck[k::n_folds])) for k in range(n_folds)]


def _strata(labels: Codes, groups: Codes) -> dict[int, tuple[int, ...]]:
    """Group -> its labels, each once, ascending."""
    return {
        int(group): tuple(int(label) for label in np.unique(labels[groups == group])) for group in np.unique(groups)
    }


def fold_gaps(labels: Codes, folds: list[Codes]) -> tuple[int, int]:
    """How many folds are empty, and how many (fold, class) pairs have no row."""
    n_classes = len(np.unique(labels))
    return sum(len(rows) == 0 for rows in folds), sum(n_classes - len(np.unique(labels[rows])) for rows in folds)


def hold_out_groups(
    labels: Codes, groups: Codes, fraction: float, reserve: int, seed: tuple[int, ...]
) -> Chosen | None:
    """Choose groups that hold about `fraction` of the rows of every class: True for their rows, (n,).

    labels, groups   int64 (n,), codes from 0
    reserve          groups of every class that must not be chosen

    Every class is in the chosen part and has `reserve` groups outside it. None if no such choice is found.
    """
    rng = np.random.default_rng(seed)
    fair: list[tuple[float, Chosen]] = []
    for candidates in (
        _neighbouring_folds(labels, groups, fraction, rng),
        _picked(labels, groups, fraction, reserve, rng),
    ):
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


def _neighbouring_folds(labels: Codes, groups: Codes, fraction: float, rng: np.random.Generator) -> Iterator[Chosen]:
    """Unions of consecutive folds of scikit-learn's splitter, for several shuffles."""
    count = len(np.unique(groups))
    folds, held = _folds(fraction, count)
    if folds < 2 or np.bincount(labels).max() < folds:
        return
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # takes two seconds

    splitter = StratifiedKFold if count == len(groups) else StratifiedGroupKFold
    for state in rng.integers(0, 1 << 31, max(1, min(_SHUFFLES, _GROUPS_AT_ONCE // count))).tolist():
        fold_of = np.zeros(len(labels), np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds: judged by the caller
            made = splitter(folds, shuffle=True, random_state=state).split(labels, labels, groups)
            for number, (_, rows) in enumerate(made):
                fold_of[rows] = number
        for first in range(folds):
            yield (fold_of - first) % folds < held


def _folds(fraction: float, groups: int) -> tuple[int, int]:
    """(number of folds, how many of them to hold out) whose ratio is nearest to `fraction`, few folds first."""
    pairs = [(k, held) for k in range(2, min(_MOST_FOLDS, groups) + 1) for held in range(1, k)]
    return min(pairs, key=lambda pair: (round(abs(pair[1] / pair[0] - fraction), 3), pair[0]), default=(0, 0))


def _picked(labels: Codes, groups: Codes, fraction: float, reserve: int, rng: np.random.Generator) -> Iterator[Chosen]:
    """Groups picked one by one in random order, for few or mixed groups, where folds do not fit."""
    names, codes = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(table, (codes, labels), 1)
    for _ in range(max(2, min(_PICKS, _GROUPS_AT_ONCE // len(names)))):
        yield _pick(table, fraction, reserve, rng)[codes]


def _pick(table: Codes, fraction: float, reserve: int, rng: np.random.Generator) -> Chosen:
    """Take a group of each class, rarest class first, then others as long as they improve the sizes.

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


def _is_fair(labels: Codes, groups: Codes, chosen: Chosen, reserve: int) -> bool:
    """Whether every class is among the chosen and keeps `reserve` groups among the others."""
    classes = np.unique(labels)
    if len(np.unique(labels[chosen])) < len(classes):
        return False
    kept = np.unique(np.stack([labels[~chosen], groups[~chosen]]), axis=1)[0]
    return bool((np.bincount(kept, minlength=classes.max() + 1)[classes] >= reserve).all())


def _miss(labels: Codes, chosen: Chosen, fraction: float) -> float:
    """How far the chosen part of each class is from `fraction`, averaged over classes."""
    total, held = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    there = total > 0
    return float(np.abs(held[there] / total[there] - fraction).mean())
