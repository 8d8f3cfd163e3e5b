"""Ink of marker pens on the cover glass.

Hue alone does not tell ink from stain: aniline blue of a trichrome is the blue of a pen, light green its green,
picrosirius its red. So ink must also be dense, even (no nuclei or fibres within the stroke), and wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from wsi_pipeline.tissue.cleanup import EIGHT_CONNECTED
from wsi_pipeline.tissue.optics import pixels_of
from wsi_pipeline.tissue.windows import local_mean, opened, shrunk

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

WORK_UM = 24.0
"""Strokes are a millimetre wide: pixels of this size show them and cost little."""
REACH_UM = 250.0
"""How far the thin, streaky rim of a stroke may reach from its dense core."""
DENSE = 0.25
"""Mean optical density of ink; stained tissue is rarely as dense over a whole 24 um pixel."""
BLACK = 0.60
"""The same for black ink, which has no hue to know it by."""
RIM = 0.06
"""Density from which a neighbour of ink with its hue belongs to the stroke."""
MATTER = 0.05
"""Density that is more than glass."""
STAIN_SHARE, MIXED_SHARE = 0.6, 0.2
"""A hue that the first part of all matter has is the stain; from the second on, strokes do not grow over it."""
ON_GLASS = 0.12
"""Least part of a red stroke's rim that is glass: blood, as red and as even, lies within tissue."""


@dataclass(frozen=True)
class Ink:
    """One colour of ink as shares of the optical density in red, green and blue: what is sure, and what may be."""

    name: str
    sure: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    maybe: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


INKS = (
    Ink("red", ((0.0, 0.11), (0.4, 0.6), (0.34, 0.6)), ((0.0, 0.13), (0.4, 0.6), (0.34, 0.6))),
    Ink("blue", ((0.42, 1.0), (0.0, 0.5), (0.0, 0.20)), ((0.38, 1.0), (0.0, 0.55), (0.0, 0.24))),
    Ink("green", ((0.38, 1.0), (0.0, 0.31), (0.15, 0.40)), ((0.36, 1.0), (0.0, 0.33), (0.10, 0.42))),
)
"""Measured on marked slides; haematoxylin is near (0.35, 0.37, 0.27), eosin (0.12, 0.56, 0.30)."""


def pen_mask(density: Plane, deviation: Plane, mpp: float) -> Mask:
    """Where pen ink lies, bool (h, w).

    density     optical density (3, h, w) at `mpp` micrometres per pixel
    deviation   local standard deviation (h, w) of its mean over the channels, 3 x 3 pixels
    """
    factor = pixels_of(WORK_UM, mpp)
    coarse = np.stack([shrunk(plane, factor) for plane in density])
    mean = coarse.mean(axis=0)
    even = local_mean(shrunk(deviation, factor), 1) < _evenness(mpp) * mean
    shares = coarse / np.maximum(coarse.sum(axis=0), 1e-3)
    reach = pixels_of(REACH_UM, max(mpp * factor, WORK_UM))
    ink = np.zeros(mean.shape, dtype=np.bool_)
    for colour in INKS:
        ink |= _strokes(colour, shares, mean, even, reach)
    neutral = coarse.max(axis=0) - coarse.min(axis=0) < 0.25 * mean
    ink |= _grown(opened(even & neutral & (mean > BLACK), 1), neutral & (mean > BLACK / 2), reach)
    height, width = density.shape[1:]
    return np.asarray(ink.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width])


def _evenness(mpp: float) -> float:
    """Largest deviation of ink relative to its density.

    Stained tissue has 0.10 to 0.25 at 8 mpp and ink 0.02 to 0.06. Coarser pixels smooth tissue away and make
    a stroke mostly edge, so that evenness says little there.
    """
    return float(np.interp(mpp, [8.0, 32.0], [0.09, 0.30]))


def _strokes(ink: Ink, shares: Plane, mean: Plane, even: Mask, reach: int) -> Mask:
    alike = _within(shares, ink.sure) & (mean > MATTER)
    matter = np.count_nonzero(mean > MATTER)
    core = opened(alike & (mean > DENSE) & even, 1)
    if not core.any() or np.count_nonzero(alike) > STAIN_SHARE * matter:
        return np.zeros_like(core)
    maybe = _within(shares, ink.maybe) & (mean > RIM)
    mixed = np.count_nonzero(maybe) - np.count_nonzero(core) > MIXED_SHARE * matter
    grown = _grown(core, core if mixed else maybe, reach)
    return _touching_glass(grown, mean < MATTER) if ink.name == "red" else grown


def _within(shares: Plane, ranges: tuple[tuple[float, float], ...]) -> Mask:
    inside = np.ones(shares.shape[1:], dtype=np.bool_)
    for share, (low, high) in zip(shares, ranges, strict=True):
        inside &= (share >= low) & (share <= high)
    return inside


def _grown(core: Mask, maybe: Mask, reach: int) -> Mask:
    """The core, what hangs together with it within `reach` pixels and may be ink, and two pixels around."""
    if not core.any():
        return core
    near = ndi.binary_dilation(core, EIGHT_CONNECTED, iterations=reach, mask=maybe | core)
    return np.asarray(ndi.binary_dilation(near, iterations=2))


def _touching_glass(ink: Mask, glass: Mask) -> Mask:
    labels, count = ndi.label(ink, structure=EIGHT_CONNECTED)
    around = ndi.maximum_filter(labels, 5)
    rim = (around > 0) & ~ink
    rims = np.bincount(around[rim], minlength=count + 1)
    open_rims = np.bincount(around[rim & glass], minlength=count + 1)
    keep = open_rims >= ON_GLASS * np.maximum(rims, 1)
    keep[0] = False
    return np.asarray(keep[labels])
