"""Groups that must stay on one side of a fold: patients, identical files under two names, whole sites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Codes = NDArray[np.int64]

CONTENT = "content"
"""Column of a table of slides with a digest of each file; equal digests are the same file."""


def codes_of(values: pd.Series[str]) -> Codes:
    """Codes 0, 1, ... of the values in sorted order; -1 for missing and empty ones."""
    text = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    return pd.factorize(text.where(text != "", None), sort=True)[0].astype(np.int64)


def joined(columns: Sequence[Codes]) -> Codes:
    """Groups (n,) of rows linked, directly or through others, by an equal code in any column; -1 links nothing.

    Numbered by their first row.
    """
    n = len(columns[0])
    rows, links = [], []
    offset = n
    for codes in columns:
        known = np.flatnonzero(codes >= 0)
        rows.append(known)
        links.append(codes[known] + offset)
        offset += int(codes.max(initial=-1)) + 1
    start, end = np.concatenate(rows), np.concatenate(links)
    graph = coo_array((np.ones(len(start)), (start, end)), shape=(offset, offset))
    component = connected_components(graph, directed=False)[1][:n]
    numbered: Codes = pd.factorize(component)[0].astype(np.int64)
    return numbered


def groups_of(table: pd.DataFrame, *, sites: bool) -> Codes:
    """The group of each row (n,): patient and identical file, and with `sites` the site too."""
    columns = [codes_of(table["patient_id"])]
    columns += [codes_of(table[CONTENT])] if CONTENT in table else []
    columns += [codes_of(table["site"])] if sites else []
    return joined(columns)


def identical_files(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each file with more than one slide_id, in the order of the table."""
    if CONTENT not in table:
        return []
    codes = codes_of(table[CONTENT])
    repeated = [code for code in pd.unique(codes[codes >= 0]) if (codes == code).sum() > 1]
    return [table[codes == code] for code in repeated]
