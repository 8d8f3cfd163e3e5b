"""Do measured values differ between groups of patients? A rank test by permutation, corrected for many measures.

The statistic is the fraction of the variance of the ranks that lies between groups (eta squared; Kruskal and Wallis, J.
Am. Stat. Assoc. 47:583, 1952, up to a factor). Its distribution is that of the groups shuffled across patients: all
arrangements if they are few, so that the p-value is exact for small cohorts. Corrected for the number of measures by
their maximum (Westfall and Young 1993), which allows for measures that go together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHUFFLES = 1999
FEWEST = 2
"""Groups of fewer patients are left out."""


@dataclass(frozen=True)
class GroupShift:
    """How far one measure differs between groups.

    strength      fraction of the variance of ranks between groups, 0 to 1; NaN if it cannot be computed
    p_value       corrected for the number of measures
    smallest      the smallest p-value these group sizes allow: if that is not small, no difference can be shown
    medians       of the patients' values, by group
    patients      how many were compared
    """

    strength: float
    p_value: float
    smallest: float
    medians: dict[str, float]
    patients: int


def group_shifts(values: NDArray[np.floating], groups: Sequence[str], seed: int = 0) -> list[GroupShift] | None:
    """One result per column of `values` (n, K), a row per patient; NaN: not measured. `groups`: one name per patient.

    None if fewer than two groups have at least FEWEST patients.
    """
    names, counts = np.unique(np.asarray(groups, object).astype(str), return_counts=True)
    kept = names[counts >= FEWEST]
    if len(kept) < 2:
        return None
    chosen = np.isin(np.asarray(groups, object).astype(str), kept)
    table, codes = np.asarray(values, np.float64)[chosen], np.searchsorted(kept, np.asarray(groups)[chosen].astype(str))
    ranks = np.column_stack([_ranks(column) for column in table.T])
    orders = _arrangements(codes, seed)
    found = _strengths(ranks, orders)
    (observed,) = _strengths(ranks, codes[None])
    most = np.nanmax(np.where(np.isnan(found), -1, found), axis=1)
    smallest = _symmetry(codes) / len(orders)
    results = []
    for k, strength in enumerate(observed):
        at_least = float(np.mean(most >= strength - 1e-9)) if np.isfinite(strength) else math.nan
        medians = {name: _median(table[codes == g, k]) for g, name in enumerate(kept.tolist())}
        results.append(GroupShift(float(strength), at_least, smallest, medians, int(np.isfinite(table[:, k]).sum())))
    return results


def _ranks(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average ranks; NaN stays NaN."""
    out = np.full(len(column), np.nan)
    known = np.flatnonzero(~np.isnan(column))
    _, inverse, counts = np.unique(column[known], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    out[known] = (last - (counts - 1) / 2)[inverse]
    return out


def _strengths(ranks: NDArray[np.float64], orders: NDArray[np.integer]) -> NDArray[np.float64]:
    """Eta squared of the ranks (n, K) for each arrangement of the groups (M, n): (M, K).

    NaN for a column without two groups or without variance.
    """
    known = ~np.isnan(ranks)
    count = known.sum(axis=0)
    mean = np.divide(np.where(known, ranks, 0.0).sum(axis=0), count, out=np.zeros(len(count)), where=count > 0)
    off = np.where(known, ranks - mean, 0.0)
    total = (off**2).sum(axis=0)
    between = np.zeros((len(orders), ranks.shape[1]))
    groups = np.zeros_like(between)
    for group in range(int(orders.max(initial=-1)) + 1):
        member = (orders == group).astype(np.float64)
        sizes, sums = member @ known.astype(np.float64), member @ off
        there = sizes > 0
        groups += there
        between += np.divide(sums**2, sizes, out=np.zeros_like(sums), where=there)
    usable = (groups >= 2) & (total > 0)
    return np.asarray(np.divide(between, total, out=np.full_like(between, np.nan), where=usable))


def _arrangements(codes: NDArray[np.intp], seed: int) -> NDArray[np.int16]:
    """All different arrangements if they are at most SHUFFLES + 1, else that many at random with the true one.

    (M, n), one arrangement a row; 16 bits, since 2,000 rows of a large cohort would take much memory.
    """
    number = math.factorial(len(codes))
    for count in np.bincount(codes):
        number //= math.factorial(int(count))
    if number <= SHUFFLES + 1:
        return np.array(list(_distinct(np.bincount(codes).tolist())), np.int16)
    rng = np.random.default_rng(seed)
    short = codes.astype(np.int16)
    return np.stack([short, *(rng.permutation(short) for _ in range(SHUFFLES))])


def _distinct(left: list[int]) -> Iterator[list[int]]:
    """Every order of the groups in which group g comes left[g] times."""
    if not any(left):
        yield []
    for group, count in enumerate(left):
        if count:
            rest = [*left[:group], count - 1, *left[group + 1 :]]
            yield from ([group, *order] for order in _distinct(rest))


def _symmetry(codes: NDArray[np.intp]) -> int:
    """Arrangements that give the same statistic because groups of one size swap their names."""
    sizes = np.bincount(np.bincount(codes))
    return math.prod(math.factorial(int(count)) for count in sizes[1:])


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan
