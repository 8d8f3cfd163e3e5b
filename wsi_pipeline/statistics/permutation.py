"""Could predictions that know nothing of the outcome have scored as well? Outcomes dealt anew among the patients.

The out-of-fold predictions stay as they are; what is shuffled is which patient has which outcome. The p-value is the
part of the shuffles that score at least as well as the truth, the truth itself counted among them (Phipson, Smyth,
Stat. Appl. Genet. Mol. Biol. 9:39, 2010), so it is never 0.

It tests whether outcomes and predictions have anything to do with each other, patients being exchangeable. It does
not train anew on shuffled outcomes, so it says nothing of what the method would make of noise; nor does it know why
they are related: a model that recognises the hospital passes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]


def permutation_p_value(score: Callable[[Codes], float], orders: Iterator[Codes], n_rows: int) -> tuple[float, int]:
    """The p-value, one-sided: higher scores are better; and the number of shuffles.

    score   of the predictions when row i has the outcome of row order[i]; a shuffle it cannot score (NaN) counts
            against the predictions
    """
    observed = score(np.arange(n_rows, dtype=np.int64))
    found = np.array([score(order) for order in orders])
    at_least = ~(found < observed - 1e-12 * max(1.0, abs(observed)))
    return float((1 + at_least.sum()) / (1 + len(found))), len(found)


def shuffles(patient: Codes, outcome: Codes, count: int, seed: int) -> Iterator[Codes]:
    """For each shuffle, whose outcome every row gets: row positions (n,).

    patient, outcome   codes (n,) of each row

    Where all rows of a patient share one outcome, outcomes are dealt among all patients. Else the rows of a patient
    stay together and change places only with a patient of as many rows.
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
