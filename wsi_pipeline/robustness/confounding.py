"""Whether neighbours share the biology or the laboratory: RI, MaRI and CRoMa, always with their support.

A neighbour of a patch is another patch, not of the same group (patient or slide). SO: same label, other site; OS: other
label, same site. Definitions: RI of PathoROB (Koemen et al. 2025, arXiv 2507.17845); MaRI and CRoMa of Grisi et al.
(arXiv 2607.25497). Where nothing can be scored the value is nan and the support 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_pipeline.robustness.movement import Rows, distances

NEIGHBOURS = 11
"""Nearest neighbours that RI and MaRI count."""
RADIUS = 5
"""Nearest SO and OS neighbours that CRoMa averages over."""


@dataclass(frozen=True)
class Index:
    """A value, and how many of the patches it rests on."""

    value: float
    scored: int
    patches: int

    @property
    def support(self) -> float:
        """Fraction of the patches that could be scored."""
        return self.scored / self.patches if self.patches else 0.0


@dataclass(frozen=True)
class Confounding:
    """The three indices. RI, MaRI: 0 to 1, above .5 the label outweighs the site. CRoMa: -1 to 1, neutral at 0.

    tau          scale of MaRI's weights exp(-d / tau): the median distance of counted neighbours
    neighbours   nearest neighbours counted by RI and MaRI, at most
    """

    ri: Index
    mari: Index
    croma: Index
    tau: float
    neighbours: int


def measure_confounding(
    rows: Rows, labels: Sequence[str], sites: Sequence[str], groups: Sequence[str], neighbours: int = NEIGHBOURS
) -> Confounding:
    """The indices of unit rows (N, D) with labels, sites and groups (patients, or slides) by row."""
    label, site, group = (np.asarray(names) for names in (labels, sites, groups))
    between = np.where(group[:, None] == group[None, :], np.inf, distances(rows, rows))
    same_label, same_site = label[:, None] == label[None, :], site[:, None] == site[None, :]
    so, os = same_label & ~same_site, ~same_label & same_site
    order = np.argsort(between, axis=1, kind="stable")[:, :neighbours]
    near = np.take_along_axis(between, order, axis=1)
    counted = np.isfinite(near)
    so_near, os_near = (np.take_along_axis(kind, order, axis=1) & counted for kind in (so, os))
    typed = so_near | os_near
    tau = float(np.median(near[typed])) if typed.any() else float("nan")
    scored, patches = int(typed.any(axis=1).sum()), len(rows)
    ri = _share(so_near.sum(), os_near.sum())
    weights = np.exp(-np.where(counted, near, 0) / tau) if tau > 0 else np.ones_like(near)
    mari = _share((weights * so_near).sum(), (weights * os_near).sum())
    margins = _margins(between, so, os)
    known = margins[np.isfinite(margins)]
    croma = Index(float(np.median(known)) if known.size else float("nan"), int(known.size), patches)
    return Confounding(Index(ri, scored, patches), Index(mari, scored, patches), croma, tau, neighbours)


def _margins(between: Rows, so: Rows, os: Rows) -> Rows:
    """CRoMa of each patch: nan unless it has RADIUS neighbours of both kinds that are not all at distance 0."""
    means = []
    for kind in (so, os):
        nearest = np.sort(np.where(kind, between, np.inf), axis=1)[:, :RADIUS]
        full = np.isfinite(nearest).all(axis=1) & (nearest.shape[1] == RADIUS)
        means.append(np.where(full, np.where(np.isfinite(nearest), nearest, 0).mean(axis=1), np.nan))
    to_so, to_os = means
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(to_so + to_os > 0, (to_os - to_so) / (to_os + to_so), np.nan))


def _share(so: float, os: float) -> float:
    return float(so / (so + os)) if so + os > 0 else float("nan")
