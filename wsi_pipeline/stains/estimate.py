"""Two stain vectors and how strong each stain is, from the densities of stained pixels; colour moments for Reinhard.

Sources: Macenko et al. 2009, ISBI (angles within the plane of the densities); Vahadane et al. 2016, IEEE Trans Med
Imaging 35:1962 (sparse non-negative factors); Reinhard et al. 2001, IEEE CG&A 21(5):34 (moments of l-alpha-beta).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.stains.density import STAINED, Floats

TAIL = 1.0
"""Percentile that is left out at either end: of the angles, and of the densest pixels."""

SPARSITY = 0.1
"""Weight of the L1 norm of the concentrations in Vahadane's factors, as in the paper."""

_ROUNDS, _STILL = 200, 1e-5
_FACTOR_PIXELS = 20_000
"""Pixels that Vahadane's factors are fitted to, evenly spaced: more change the vectors by less than a degree."""

_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
"""RGB to cone responses (Reinhard 2001, equation 4)."""
_AXES = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
"""Logarithms of cone responses to l, alpha, beta (Reinhard 2001, equation 6)."""


def to_lab() -> tuple[Floats, Floats]:
    """The two matrices (3, 3) of l-alpha-beta: RGB to cone responses, whose logarithms become l, alpha, beta."""
    return _LMS, _AXES


def macenko(densities: Floats) -> Floats:
    """Stain vectors (2, 3) of length 1, haematoxylin first, from densities (N, 3) of stained pixels, N > 1.

    The plane goes through the origin, as Beer and Lambert's law has it, so it is that of the largest second moments,
    not of the covariances. The vectors are at the 1st and 99th percentile of the angle within it, over pixels dense
    enough that noise does not turn them.
    """
    dense = densities[densities.max(axis=1) > 2 * STAINED]
    densities = dense if len(dense) > 1 else densities
    _, axes = np.linalg.eigh(densities.T @ densities)
    plane = axes[:, [2, 1]] * np.sign(axes[:, [2, 1]].sum(axis=0) + 1e-12)
    along = densities @ plane
    low, high = np.percentile(np.arctan2(along[:, 1], along[:, 0]), [TAIL, 100 - TAIL])
    ends = np.array([[np.cos(low), np.sin(low)], [np.cos(high), np.sin(high)]]) @ plane.T
    return _in_order(ends)


def vahadane(densities: Floats) -> Floats:
    """Stain vectors (2, 3) of length 1, haematoxylin first: a sparse dictionary of two, none of it negative.

    Alternates between the concentrations (exact, as two have a closed form) and the vectors (Mairal et al. 2010, JMLR
    11:19, algorithm 2), from Macenko's vectors on, over evenly spaced pixels: equal pixels give equal vectors.
    """
    chosen = np.maximum(densities[:: max(1, len(densities) // _FACTOR_PIXELS)], 0.0)
    vectors = macenko(densities)
    for _ in range(_ROUNDS):
        codes = sparse_codes(chosen, vectors)
        before, gram, products = vectors, codes.T @ codes, codes.T @ chosen
        vectors = vectors.copy()
        for row in range(2):
            if gram[row, row] > 1e-9:
                moved = vectors[row] + (products[row] - gram[row] @ vectors) / gram[row, row]
                moved = np.maximum(moved, 0.0)
                vectors[row] = moved / max(np.linalg.norm(moved), 1e-12)
        if np.abs(vectors - before).max() < _STILL:
            break
    return _in_order(vectors)


def sparse_codes(densities: Floats, vectors: Floats, weight: float = SPARSITY) -> Floats:
    """Concentrations (N, 2), none negative, that minimise |d - c V|^2 / 2 + weight * |c|_1 for vectors V of length 1.

    With two stains the minimum is one of three: both are there, or one of them alone.
    """
    pulls = densities @ vectors.T - weight
    cosine = float(vectors[0] @ vectors[1])
    both = (pulls - cosine * pulls[:, ::-1]) / max(1.0 - cosine**2, 1e-12)
    alone = np.maximum(pulls, 0.0)
    first = np.where(both[:, 1] <= 0.0, alone[:, 0], np.where(both[:, 0] <= 0.0, 0.0, both[:, 0]))
    second = np.where(both[:, 0] <= 0.0, alone[:, 1], np.where(both[:, 1] <= 0.0, 0.0, both[:, 1]))
    return np.stack([first, second], axis=1)


def concentrations(densities: Floats, vectors: Floats) -> Floats:
    """Concentration (N, 2) of each stain in densities (N, 3), by least squares."""
    found: Floats = densities @ np.linalg.pinv(vectors)
    return found


def strength(densities: Floats, vectors: Floats) -> Floats:
    """Concentration (2,) that 99 % of the stained pixels do not exceed."""
    found: Floats = np.percentile(concentrations(densities, vectors), 100 - TAIL, axis=0)
    return found


def moments(pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Mean and standard deviation (3,) of l, alpha, beta over pixels uint8 (N, 3)."""
    values = np.log10((pixels.astype(np.float64) + 1.0) @ _LMS.T) @ _AXES.T
    return values.mean(axis=0), values.std(axis=0)


def angle(one: Floats, other: Floats) -> float:
    """Angle between two vectors in degrees."""
    cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _in_order(vectors: Floats) -> Floats:
    """Not negative, of length 1, the one that absorbs more red light, relative to green, first."""
    kept = np.maximum(vectors, 0.0)
    kept = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12)
    redness = kept[:, 0] / np.maximum(kept[:, 1], 1e-12)
    found: Floats = kept[np.argsort(-redness, kind="stable")]
    return found
