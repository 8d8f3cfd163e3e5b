"""Permutation test: would predictions unrelated to the outcome score as well?

Out-of-fold predictions are kept; outcomes are permuted across patients. The p-value is the fraction of permutations
that score at least as well as the true outcomes, which count as one of them (Phipson, Smyth, Stat. Appl. Genet. Mol.
Biol. 9:39, 2010), so it is never 0.

The test asks whether predictions and outcomes are related at all, assuming that patients are exchangeable. Models are
not retrained on permuted outcomes, so it does not show how well the method would fit noise. Nor does it show why the
two are related: a model that recognises the hospital passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]

MOST_PATIENTS = 300
"""The test is meant for small cohorts; in larger ones the interval is as informative."""


def permutation_test(
    scores: Sequence[Callable[[Codes], float]], patient: Codes, outcome: Codes, count: int, seed: int
) -> dict[str, Any] | None:
    """`{"p_value", "n"}` of the mean score over the repeats; None if there is no test.

    scores            one score function per repeat, as for `permutation_p_value`
    patient, outcome  codes (n,) of the rows, the same in all repeats
    count             number of permutations; 0: no test

    There is no test either for more than `MOST_PATIENTS` patients, or if a score is undefined (NaN) for the true
    outcomes.
    """
    identity = np.arange(len(patient), dtype=np.int64)
    if count == 0 or len(np.unique(patient)) > MOST_PATIENTS or any(np.isnan(score(identity)) for score in scores):
        return None

    def mean(order: Codes) -> float:
        """Mean score over the repeats."""
        return float(np.mean([score(order) for score in scores]))

    p_value, n = permutation_p_value(mean, shuffles(patient, outcome, count, seed), len(patient))
    return {"p_value": p_value, "n": n}


def permutation_p_value(score: Callable[[Codes], float], orders: Iterator[Codes], n_rows: int) -> tuple[float, int]:
    """One-sided p-value (higher scores are better), and the number of permutations.

    score   function of `order`: score of the predictions if row i had the outcome of row order[i]; a permutation with
            an undefined score (NaN) counts as at least as good as the true order
    """
    observed = score(np.arange(n_rows, dtype=np.int64))
    found = np.array([score(order) for order in orders])
    at_least = ~(found < observed - 1e-12 * max(1.0, abs(observed)))
    return float((1 + at_least.sum()) / (1 + len(found))), len(found)


def shuffles(patient: Codes, outcome: Codes, count: int, seed: int) -> Iterator[Codes]:
    """Permutations as row positions (n,): row i gets the outcome of row order[i].

    patient, outcome   codes (n,) of each row

    If the rows of each patient share one outcome, outcomes are permuted across patients. Otherwise the outcomes of a
    patient's rows stay together and are exchanged between patients with the same number of rows.
    """
    rng = np.random.default_rng(seed)
    rows_of = _rows_by_patient(patient)
    number = np.unique(patient, return_inverse=True)[1]
    if all((outcome[rows] == outcome[rows[0]]).all() for rows in rows_of):
        first = np.array([rows[0] for rows in rows_of])
        for _ in range(count):
            yield rng.permutation(first)[number]
        return
    sizes = np.array([len(rows) for rows in rows_of])
    for _ in range(count):
        order = np.empty(len(patient), np.int64)
        for size in np.unique(sizes):
            members = np.flatnonzero(sizes == size)
            for own, other in zip(members, rng.permutation(members), strict=True):
                order[rows_of[own]] = rows_of[other]
        yield order


def _rows_by_patient(patient: Codes) -> list[Codes]:
    order = np.argsort(patient, kind="stable")
    cuts = np.flatnonzero(np.diff(patient[order])) + 1
    return [rows.astype(np.int64) for rows in np.split(order, cuts)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for multiple testing, in the order given (Holm, Scand. J. Statist. 6:65, 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on, keeping them non-decreasing and at most 1. This
    controls the family-wise error rate for any dependence between the tests.
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[k]))
        corrected[k] = highest
    return corrected
