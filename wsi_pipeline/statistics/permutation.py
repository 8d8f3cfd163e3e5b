"""Permutation test: would predictions that know nothing of the outcome score as well?

The out-of-fold predictions stay as they are; outcomes are permuted across patients. The p-value is the fraction of
permutations that score at least as well as the true outcomes, which count as one of them (Phipson, Smyth, Stat. Appl.
Genet. Mol. Biol. 9:39, 2010), so it is never 0.

The test asks whether predictions and outcomes are related at all; patients are taken to be exchangeable. Models are
not retrained on permuted outcomes, so it does not show what the method would make of noise. Nor does it show why the
two are related: a model that recognises the hospital passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]

MOST_PATIENTS = 300
"""The test is for small cohorts; in larger ones the interval says as much."""


def permutation_test(
    scores: Sequence[Callable[[Codes], float]], patient: Codes, outcome: Codes, count: int, seed: int
) -> dict[str, Any] | None:
    """`{"p_value", "n"}` of the mean of some scores; None if it cannot be tested.

    scores            of each repeat of the predictions, as `permutation_p_value` takes one
    patient, outcome  codes (n,) of the rows, which all repeats share
    count             permutations; 0: no test

    Not tested are also cohorts of more than `MOST_PATIENTS` patients, and scores that are undefined (NaN) for the true
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

    score   of the predictions if row i had the outcome of row order[i]; a permutation without a score (NaN) counts
            against the predictions
    """
    observed = score(np.arange(n_rows, dtype=np.int64))
    found = np.array([score(order) for order in orders])
    at_least = ~(found < observed - 1e-12 * max(1.0, abs(observed)))
    return float((1 + at_least.sum()) / (1 + len(found))), len(found)


def shuffles(patient: Codes, outcome: Codes, count: int, seed: int) -> Iterator[Codes]:
    """Permutations: row positions (n,), of whose outcome each row gets.

    patient, outcome   codes (n,) of each row

    If all rows of each patient share one outcome, outcomes are permuted across patients. Otherwise the rows of a
    patient stay together, and patients with equally many rows change places.
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
    """P-values corrected for testing several hypotheses, in the order given (Holm, Scand. J. Statist. 6:65, 1979).

    The smallest of m is multiplied by m, the next by m - 1, ...; none is smaller than one before it, or above 1. The
    probability of any false positive is at most the level, whatever the tests share.
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[k]))
        corrected[k] = highest
    return corrected
