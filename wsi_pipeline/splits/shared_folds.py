"""The same folds for several targets: a patient is in one fold, whichever of its targets are known.

Iterative stratification of Sechidis, Tsoumakas and Vlahavas (ECML PKDD 2011), over whole groups (patients, identical
files, sites): the rarest stratum of all targets is assigned first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.splits.assign import Strata, checked_table, seed_of
from wsi_pipeline.splits.fold import SplitOptions
from wsi_pipeline.splits.groups import CONTENT, groups_of
from wsi_pipeline.splits.stratify import fold_gaps, stratified_folds

Codes = NDArray[np.int64]


def share_folds(targets: Mapping[str, tuple[pd.DataFrame, Strata]], spec: SplitOptions) -> dict[str, list[list[int]]]:
    """The fold of each row of each target's table, one number per repeat; for `make_splits` as the column SHARED.

    targets   name -> its table (slide_id, patient_id, content, site) and what is spread evenly over its folds

    A target is left out if folds of its own would be better (fewer folds that lack a class). If fewer than two remain,
    or if the column `split` already divides the slides, the result is empty.
    """
    tables = {name: checked_table(table, ()) for name, (table, _) in targets.items()}
    if len(targets) < 2 or any("split" in table and table["split"].notna().any() for table in tables.values()):
        return {}
    columns = ["slide_id", "patient_id", CONTENT, "site"]
    whole = pd.concat([table[[c for c in columns if c in table]] for table in tables.values()], ignore_index=True)
    whole = whole.drop_duplicates("slide_id", ignore_index=True)
    place = {slide: row for row, slide in enumerate(whole["slide_id"])}
    groups = groups_of(whole, sites=spec.site_folds and "site" in whole)
    rows = {name: np.array([place[s] for s in table["slide_id"]], np.int64) for name, table in tables.items()}
    codes = [_spread(rows[name], strata.codes, len(whole)) for name, (_, strata) in targets.items()]
    n_folds = min(spec.folds, int(groups.max()) + 1)
    repeats = [assign_folds(groups, codes, n_folds, seed_of(spec.seed, repeat)) for repeat in range(spec.repeats)]
    shared = {
        name: np.stack([folds[rows[name]] for folds in repeats], axis=1).tolist()
        for name, (_, strata) in targets.items()
        if all(
            _serves(strata, groups[rows[name]], folds[rows[name]], n_folds, seed_of(spec.seed, repeat))
            for repeat, folds in enumerate(repeats)
        )
    }
    return shared if len(shared) > 1 else {}


def assign_folds(groups: Codes, strata: Sequence[Codes], n_folds: int, seed: int) -> Codes:
    """The fold (n,) of each row: groups undivided, the strata of every target spread evenly.

    groups   group of each row (n,), numbers from 0
    strata   for each target the stratum of each row (n,), numbers from 0; -1 where it is not known
    """
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1
    held = _strata_of_groups(groups, strata, n_groups)
    counts = held.sum(axis=0)
    wanted = np.repeat(counts[:, None] / n_folds, n_folds, axis=1)
    room = np.full(n_folds, n_groups / n_folds)
    fold = np.full(n_groups, -1, np.int64)
    open_groups = rng.permutation(n_groups)
    while len(open_groups):
        left = held[open_groups].sum(axis=0)
        known = np.flatnonzero(left)
        rarest = int(known[np.argmin(left[known])]) if len(known) else None
        taking = open_groups if rarest is None else open_groups[held[open_groups, rarest]]
        for group in taking:
            most = np.ones(n_folds, bool) if rarest is None else wanted[rarest] >= wanted[rarest].max() - 1e-9
            candidates = np.flatnonzero(most)
            candidates = candidates[room[candidates] >= room[candidates].max() - 1e-9]
            chosen = int(rng.choice(candidates))
            fold[group] = chosen
            wanted[held[group], chosen] -= 1
            room[chosen] -= 1
        open_groups = open_groups[fold[open_groups] < 0]
    return fold[groups]


def _strata_of_groups(groups: Codes, strata: Sequence[Codes], n_groups: int) -> NDArray[np.bool_]:
    """Whether a group has a row of a stratum: (n_groups, n_strata), the strata of all targets side by side."""
    columns = []
    for codes in strata:
        own = np.zeros((n_groups, int(codes.max(initial=-1)) + 1), bool)
        known = codes >= 0
        own[groups[known], codes[known]] = True
        columns.append(own)
    return np.concatenate(columns, axis=1)


def _spread(rows: Codes, codes: Codes, n: int) -> Codes:
    found = np.full(n, -1, np.int64)
    found[rows] = codes
    return found


def _serves(strata: Strata, groups: Codes, folds: Codes, n_folds: int, seed: int) -> bool:
    """Whether shared folds are as good for a target as its own: none empty, none without a class it could have.

    groups, folds   of the target's rows
    """
    tests = [np.flatnonzero(folds == k) for k in range(n_folds)]
    codes = strata.codes if strata.classes else np.zeros_like(strata.codes)
    gaps = fold_gaps(codes, tests)
    if gaps == (0, 0):
        return True
    dense = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    if int(dense.max()) + 1 < n_folds:
        return False
    return gaps <= fold_gaps(codes, stratified_folds(codes, dense, n_folds, seed))
