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
HALF_WIDTH_UM = 50.0
"""Half the width that the even core of the finest stroke has; clumps of blood are mostly narrower."""
REACH_UM = 250.0
"""How far the thin, streaky rim of a stroke may reach from its dense core."""
DENSE = 0.25
"""Mean optical density of ink; stained tissue is rarely as dense over a whole 24 um pixel."""
BLACK = 0.60
"""The same for black ink, which has no hue to know it by."""
NEUTRAL = 0.083
"""Black ink takes the three channels' shares of density no further apart than this."""
RIM = 0.06
"""Density from which a neighbour of ink with its hue belongs to the stroke."""
MATTER = 0.05
"""Density that is more than glass."""
STAIN_SHARE, MIXED_SHARE = 0.6, 0.2
"""A hue that the first part of all matter has is the stain; from the second on, strokes do not grow over it."""
SURE_SHARE, FINE_MPP = 0.5, 16.0
"""Unless so much of that hue is dense and even, at a resolution that shows the texture of tissue: a marked biopsy."""
CONTRAST = 2.2
"""Or unless its dense part is so many times as dense as all the rest."""
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
    look = _Look(
        mean=coarse.mean(axis=0),
        even=local_mean(shrunk(deviation, factor), 1) < _evenness(mpp) * coarse.mean(axis=0),
        shares=coarse / np.maximum(coarse.sum(axis=0), 1e-3),
        mpp=mpp,
    )
    ink = _black(look)
    for colour in INKS:
        ink |= _coloured(colour, look)
    height, width = density.shape[1:]
    return np.asarray(ink.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width])


@dataclass(frozen=True, eq=False)
class _Look:
    """What ink is judged by: mean density, evenness, shares of the channels, and the resolution of the picture."""

    mean: Plane
    even: Mask
    shares: Plane
    mpp: float

    @property
    def matter(self) -> int:
        """Number of pixels that are more than glass."""
        return int(np.count_nonzero(self.mean > MATTER))

    def within(self, ranges: tuple[tuple[float, float], ...]) -> Mask:
        """Pixels whose three shares lie in their ranges."""
        inside = np.ones(self.mean.shape, dtype=np.bool_)
        for share, (low, high) in zip(self.shares, ranges, strict=True):
            inside &= (share >= low) & (share <= high)
        return inside

    def pixels(self, length_um: float) -> int:
        """A length in the pixels of these planes."""
        return pixels_of(length_um, max(self.mpp, WORK_UM))

    def core(self, alike: Mask) -> Mask:
        """The even parts of `alike` that are as wide as a stroke."""
        return opened(alike & self.even, self.pixels(HALF_WIDTH_UM))

    def grown(self, core: Mask, maybe: Mask) -> Mask:
        """The core, what hangs together with it within reach and may be ink, and two pixels around."""
        if not core.any():
            return core
        reach = self.pixels(REACH_UM)
        near = ndi.binary_dilation(core, EIGHT_CONNECTED, iterations=reach, mask=maybe | core)
        return np.asarray(ndi.binary_dilation(near, iterations=2))


def _evenness(mpp: float) -> float:
    """Largest deviation of ink relative to its density.

    Stained tissue has 0.10 to 0.25 at 8 mpp and ink 0.02 to 0.06. Coarser pixels smooth tissue away and make
    a stroke mostly edge, so that evenness says little there.
    """
    return float(np.interp(mpp, [8.0, 32.0], [0.09, 0.30]))


def _black(look: _Look) -> Mask:
    neutral = look.shares.max(axis=0) - look.shares.min(axis=0) < NEUTRAL
    alike = neutral & (look.mean > BLACK)
    core = ndi.binary_propagation(look.core(alike), EIGHT_CONNECTED, alike)
    return look.grown(core, neutral & (look.mean > BLACK / 2))


def _coloured(ink: Ink, look: _Look) -> Mask:
    alike = look.within(ink.sure) & (look.mean > MATTER)
    core = look.core(alike & (look.mean > DENSE))
    if not core.any() or _is_stain(alike, core, look):
        return np.zeros_like(core)
    maybe = look.within(ink.maybe) & (look.mean > RIM)
    if np.count_nonzero(maybe & ~core) > MIXED_SHARE * look.matter:
        grown = look.grown(core, core)
    else:
        grown = look.grown(ndi.binary_propagation(core, EIGHT_CONNECTED, alike), maybe)
    return _touching_glass(grown, look.mean < MATTER) if ink.name == "red" else grown


def _is_stain(alike: Mask, core: Mask, look: _Look) -> bool:
    """True where a hue is the slide's stain: most matter has it, and nothing of it stands out as ink does."""
    hue = np.count_nonzero(alike)
    if hue <= STAIN_SHARE * look.matter:
        return False
    rest = look.mean[(look.mean > MATTER) & ~core]
    stands_out = not rest.size or np.median(look.mean[core]) > CONTRAST * np.median(rest)
    is_even = look.mpp <= FINE_MPP and np.count_nonzero(core) > SURE_SHARE * hue
    return not (stands_out or is_even)


def _touching_glass(ink: Mask, glass: Mask) -> Mask:
    labels, count = ndi.label(ink, structure=EIGHT_CONNECTED)
    around = ndi.maximum_filter(labels, 5)
    rim = (around > 0) & ~ink
    rims = np.bincount(around[rim], minlength=count + 1)
    open_rims = np.bincount(around[rim & glass], minlength=count + 1)
    keep = open_rims >= ON_GLASS * np.maximum(rims, 1)
    keep[0] = False
    return np.asarray(keep[labels])
