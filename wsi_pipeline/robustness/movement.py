"""How far features moved, in units in which encoders can be compared: the distances between real patches.

All distances are cosine distances, 1 - cos, from 0 to 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Names = Sequence[str]

RESAMPLES = 1000


@dataclass(frozen=True)
class Movement:
    """How far features moved under one perturbation.

    median, low, high   median cosine distance to the unchanged patch, and its 95 % interval over slides
    relative            median of that distance over the distance to the nearest patch of another slide; nan without one
    lost                fraction of patches that, changed, are nearer to another patch than to themselves
    patches, slides     how many it was measured on
    """

    median: float
    low: float
    high: float
    relative: float
    lost: float
    patches: int
    slides: int


@dataclass(frozen=True)
class PatchDistances:
    """Distances between unchanged patches: medians over patches, and how many patches had such a neighbour.

    nearest_own_slide       to the nearest patch of the same slide
    nearest_other_slide     to the nearest patch of another slide
    nearest_same_site       to the nearest patch of another slide of the same site
    nearest_other_site      to the nearest patch of another site
    any_other_slide         between patches of different slides, the median over all pairs
    """

    values: dict[str, float]
    support: dict[str, int]


def unit(features: NDArray[np.floating]) -> Rows:
    """Rows (N, D) of length 1; rows of zeros stay."""
    rows = np.asarray(features, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths))


def distances(first: Rows, second: Rows) -> Rows:
    """Cosine distances (N, M) between unit rows (N, D) and (M, D)."""
    return np.asarray(np.clip(1 - first @ second.T, 0, 2))


def measure_movement(original: Rows, changed: Rows, slides: Names, seed: int = 0) -> Movement:
    """How far unit rows (N, D) moved; row i of both is the same patch, of the slide named at place i."""
    moved = _row_distances(original, changed)
    between = distances(original, original)
    of_slide = np.asarray(slides)
    other = np.where(of_slide[:, None] != of_slide[None, :], between, np.inf).min(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(np.isfinite(other) & (other > 0), moved / other, np.nan)
    to_all = distances(changed, original)
    np.fill_diagonal(to_all, np.inf)
    lost = float((to_all.min(axis=1) < moved).mean()) if len(moved) > 1 else float("nan")
    low, high = _interval(moved, of_slide, seed)
    relative = float(np.nanmedian(ratios)) if np.isfinite(ratios).any() else float("nan")
    return Movement(float(np.median(moved)), low, high, relative, lost, len(moved), len(np.unique(of_slide)))


def measure_neighbours(rows: Rows, slides: Names, sites: Sequence[str | None]) -> PatchDistances:
    """Distances between unit rows (N, D) of slides and sites; patches of an unknown site count for no site."""
    between = distances(rows, rows)
    np.fill_diagonal(between, np.inf)
    slide, site = np.asarray(slides), np.asarray([name or "" for name in sites])
    other = slide[:, None] != slide[None, :]
    known = (site[:, None] != "") & (site[None, :] != "")
    same_site = site[:, None] == site[None, :]
    kinds = {
        "nearest_own_slide": ~other,
        "nearest_other_slide": other,
        "nearest_same_site": other & known & same_site,
        "nearest_other_site": known & ~same_site,
    }
    values, support = {}, {}
    for name, allowed in kinds.items():
        nearest = np.where(allowed, between, np.inf).min(axis=1)
        found = nearest[np.isfinite(nearest)]
        values[name], support[name] = (float(np.median(found)) if found.size else float("nan")), int(found.size)
    pairs = between[other]
    values["any_other_slide"] = float(np.median(pairs)) if pairs.size else float("nan")
    support["any_other_slide"] = int(other.any(axis=1).sum())
    return PatchDistances(values, support)


def _row_distances(first: Rows, second: Rows) -> Rows:
    same = (first == second).all(axis=1)  # rounding must not move what did not move
    return np.asarray(np.where(same, 0.0, np.clip(1 - np.einsum("ij,ij->i", first, second), 0, 2)))


def _interval(moved: Rows, slides: NDArray[np.str_], seed: int) -> tuple[float, float]:
    """95 % interval of the median: whole slides are drawn, as patches of one slide are alike. nan for one slide."""
    groups = [moved[slides == name] for name in np.unique(slides)]
    if len(groups) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    medians = [
        np.median(np.concatenate([groups[number] for number in rng.integers(0, len(groups), len(groups))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)
