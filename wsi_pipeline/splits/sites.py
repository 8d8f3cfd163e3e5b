"""Association of label and site: if it is strong, a model that only recognises scanner or stain scores well.

Counted in patients. The strength is Cramer's V, corrected for its bias on small tables (Bergsma, J. Korean Stat. Soc.
42:323, 2013). The p-value is from a permutation test of the chi-square statistic (labels permuted across patients),
which does not need large counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.splits.groups import codes_of
from wsi_pipeline.wording import counted, listed

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]

SHUFFLES = 1999
_CELLS = 1_000_000
"""Permuted labels held at once."""

STRONG, UNLIKELY = 0.3, 0.05
"""Smallest V and largest p-value that give a warning."""


@dataclass(frozen=True)
class Association:
    """Patients by site (rows) and class (columns): counts, Cramer's V (0 none, 1 complete), p-value."""

    sites: tuple[str, ...]
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    strength: float
    p_value: float

    @property
    def complete(self) -> bool:
        """No site has patients of more than one class."""
        return all(sum(n > 0 for n in row) == 1 for row in self.counts)

    @property
    def n_patients(self) -> int:
        """How many were counted."""
        return sum(map(sum, self.counts))

    def in_words(self, most: int = 6) -> str:
        """`North: normal 1, tumour 20; South: normal 18, tumour 0`."""
        rows = [
            f"{site}: " + ", ".join(f"{name} {n}" for name, n in zip(self.classes, row, strict=True))
            for site, row in zip(self.sites, self.counts, strict=True)
        ]
        return listed(rows, most, "; ", "sites")


def site_association(table: pd.DataFrame, strata: Codes, classes: tuple[str, ...], seed: int = 0) -> Association | None:
    """Association of site and stratum; None without the column `site`, or with fewer than two sites or strata.

    A patient counts once for each of their combinations of site and stratum.
    """
    if "site" not in table:
        return None
    known = table["site"].notna() & (table["site"].astype(str).str.strip() != "")
    found = pd.DataFrame(
        {"patient": table["patient_id"], "site": table["site"].astype(str).str.strip(), "stratum": strata}
    )
    found = found[known].drop_duplicates()
    if found["site"].nunique() < 2 or found["stratum"].nunique() < 2:
        return None
    sites, strata_there = codes_of(found["site"]), found["stratum"].to_numpy(np.int64)
    present = np.unique(strata_there)
    columns = np.searchsorted(present, strata_there)
    counts = _counts(sites, columns)
    observed = _chi_square(counts)
    shuffled = _shuffled(sites, columns, counts, np.random.default_rng(seed))
    p_value = float((1 + (shuffled >= observed - 1e-9).sum()) / (1 + SHUFFLES))
    names = tuple(sorted(found["site"].unique()))
    cells = tuple(tuple(int(n) for n in row) for row in counts)
    return Association(names, tuple(classes[k] for k in present), cells, cramers_v(counts), p_value)


def cramers_v(counts: Floats) -> float:
    """Bias-corrected Cramer's V of a table of counts (r, c) without empty rows or columns; 0 to 1."""
    n, (rows, columns) = counts.sum(), counts.shape
    if n < 2:
        return 0.0
    phi = max(0.0, _chi_square(counts) / n - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(min(1.0, np.sqrt(phi / smaller))) if smaller > 1e-9 else 0.0


def site_warnings(found: Association | None, *, whole_sites: bool) -> list[str]:
    """A warning if label and site are associated, with the table in words.

    whole_sites   whether folds keep sites whole, so that recognising a site does not help
    """
    if found is None:
        return []
    strong = found.strength >= STRONG and found.p_value < UNLIKELY
    if not (strong or (found.complete and len(found.classes) > 1)):
        return []
    how = "Every site has patients of one class only" if found.complete else "The label follows the site"
    facts = f"Cramer's V {found.strength:.2f}, p {_p(found.p_value)}, {counted(found.n_patients, 'patient')}"
    advice = (
        "Whole sites were held out, so recognising a site does not help; but few sites say little about other sites."
        if whole_sites
        else "A model may score by recognising the site: compare with --site-folds."
    )
    return [f"{how} ({facts}; {found.in_words()}). {advice}"]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _counts(rows: Codes, columns: Codes) -> Floats:
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def _shuffled(rows: Codes, columns: Codes, counts: Floats, rng: np.random.Generator) -> Floats:
    """Chi-square statistic of each permutation of the columns, (SHUFFLES,); the margins stay the same."""
    cells, expected = counts.size, _expected(counts)
    found = []
    for start in range(0, SHUFFLES, step := max(1, _CELLS // max(len(rows), cells))):
        n = min(step, SHUFFLES - start)
        dealt = rng.permuted(np.tile(columns, (n, 1)), axis=1)
        index = np.arange(n)[:, None] * cells + rows * counts.shape[1] + dealt
        tables = np.bincount(index.ravel(), minlength=n * cells).reshape(n, *counts.shape)
        found.append(((tables - expected) ** 2 / expected).sum((1, 2)))
    return np.concatenate(found)


def _chi_square(counts: Floats) -> float:
    expected = _expected(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def _expected(counts: Floats) -> Floats:
    expected: Floats = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    return expected
