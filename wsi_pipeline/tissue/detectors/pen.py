"""Ink of marker pens on the cover glass.

Hue alone does not distinguish ink from stain: aniline blue of a trichrome is the blue of a pen, light green its green,
picrosirius its red. So ink must also be dense, even (no nuclei or fibres within the stroke), and wide; or, if it is
narrow, denser than any stain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from wsi_pipeline.tissue.cleanup import EIGHT_CONNECTED
from wsi_pipeline.tissue.detectors.filters import dilated, eroded, local_deviation, local_mean, opened, shrunk
from wsi_pipeline.tissue.detectors.optics import mean_density, pixels_of
from wsi_pipeline.tissue.detectors.pen_colours import BLACK, BROAD, INKS, NARROW, NEUTRAL, Hue, Ink, Stroke

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

MATTER = 0.05
"""Density above that of glass."""
STAIN_SHARE, MIXED_SHARE = 0.6, 0.2
"""A hue shared by the first fraction of all matter is the stain; from the second on, strokes do not grow over it."""
SURE_SHARE, FINE_MPP = 0.5, 16.0
"""Unless this part of that hue is dense and even, at a resolution that shows the texture of tissue: a marked biopsy."""
CONTRAST = 2.2
"""Or unless its dense part is this many times as dense as the rest."""
NARROW_EVEN = 0.12
"""Largest deviation of a narrow stroke relative to its density, within the evenest 3 x 3 pixels around."""


def pen_mask(density: Plane, deviation: Plane, mpp: float) -> Mask:
    """Where pen ink lies, bool (h, w).

    density     optical density (3, h, w) at `mpp` micrometres per pixel
    deviation   local standard deviation (h, w) of its mean over the channels, 3 x 3 pixels
    """
    factor = pixels_of(BROAD.work_um, mpp)
    coarse = np.stack([shrunk(plane, factor) for plane in density])
    mean = coarse.mean(axis=0)
    even = local_mean(shrunk(deviation, factor), 1) < _evenness(mpp) * mean
    ink = _enlarged(_all_inks(_look(coarse, even, mpp, BROAD)), factor, density.shape[1:])
    return ink | _narrow(density, ink, mpp) if mpp <= FINE_MPP else ink


def _narrow(density: Plane, known: Mask, mpp: float) -> Mask:
    """Strokes too narrow for the coarse resolution. Skipped if everything dense enough is `known` as ink."""
    factor = pixels_of(NARROW.work_um, mpp)
    planes = np.stack([shrunk(plane, factor) for plane in density]) if factor > 1 else density
    red, green, blue = planes
    peak = np.maximum(np.maximum(red, green), blue)
    dense = _enlarged(peak > NARROW.peak, factor, known.shape) & ~known
    if not eroded(dense, factor * pixels_of(NARROW.half_width_um, max(mpp, NARROW.work_um))).any():
        return np.zeros_like(known)
    mean = mean_density(planes)
    even = dilated(local_deviation(mean, 1) < NARROW_EVEN * mean, 1)
    return _enlarged(_all_inks(_look(planes, even, mpp, NARROW)), factor, known.shape)


def _enlarged(mask: Mask, factor: int, shape: tuple[int, ...]) -> Mask:
    height, width = shape
    return np.asarray(mask.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width])


@dataclass(frozen=True, eq=False)
class _Look:
    """The planes by which ink is judged.

    mean     mean density (h, w)
    solid    where the core of a stroke may be (h, w): even, and dense enough in one channel
    matter   flat indices of the n pixels denser than glass
    shares   of the three channels in the density of these pixels (3, n)
    mpp      resolution of the picture, and `stroke` the width of stroke to look for
    """

    mean: Plane
    solid: Mask
    matter: NDArray[np.intp]
    shares: Plane
    mpp: float
    stroke: Stroke

    def within(self, hue: Hue) -> Mask:
        """Matter whose three shares lie in their ranges."""
        inside = np.ones(self.matter.size, dtype=np.bool_)
        for share, (low, high) in zip(self.shares, hue, strict=True):
            inside &= (share >= low) & (share <= high)
        return self.spread(inside)

    def neutral(self) -> Mask:
        """Matter without hue."""
        return self.spread(self.shares.max(axis=0) - self.shares.min(axis=0) < NEUTRAL)

    def spread(self, chosen: Mask) -> Mask:
        """The mask (h, w) of `chosen` pixels (n,) of matter."""
        mask = np.zeros(self.mean.shape, dtype=np.bool_)
        mask.flat[self.matter[chosen]] = True
        return mask

    def pixels(self, length_um: float) -> int:
        """A length in the pixels of these planes."""
        return pixels_of(length_um, max(self.mpp, self.stroke.work_um))

    def core(self, alike: Mask) -> Mask:
        """The even and dense parts of `alike` that are as wide as a stroke."""
        return opened(alike & self.solid, self.pixels(self.stroke.half_width_um))

    def grown(self, core: Mask, maybe: Mask) -> Mask:
        """The core, connected pixels within reach that may be ink, and two pixels around them."""
        if not core.any():
            return core
        reach = self.pixels(self.stroke.reach_um)
        near = ndi.binary_dilation(core, EIGHT_CONNECTED, iterations=reach, mask=maybe | core)
        return np.asarray(ndi.binary_dilation(near, iterations=2))

    def on_glass(self, ink: Mask, share: float) -> Mask:
        """The strokes whose rim is glass to at least `share`, or to the fraction that their width requires."""
        share = max(share, self.stroke.on_glass)
        return _touching_glass(ink, self.mean < MATTER, share) if share and ink.any() else ink


def _look(planes: Plane, even: Mask, mpp: float, stroke: Stroke) -> _Look:
    mean = mean_density(planes)
    matter = np.flatnonzero(mean > MATTER)
    shares = planes.reshape(3, -1)[:, matter]
    shares /= shares.sum(axis=0)
    return _Look(
        mean=mean, solid=(planes > stroke.peak).any(axis=0) & even, matter=matter, shares=shares, mpp=mpp, stroke=stroke
    )


def _all_inks(look: _Look) -> Mask:
    ink = _black(look)
    for colour in INKS:
        ink |= _coloured(colour, look)
    return ink


def _evenness(mpp: float) -> float:
    """Largest deviation of ink relative to its density.

    Stained tissue has 0.10 to 0.25 at 8 mpp and ink 0.02 to 0.06. Coarser pixels smooth tissue away and make
    a stroke mostly edge, so that evenness says little there.
    """
    return float(np.interp(mpp, [8.0, 32.0], [0.09, 0.30]))


def _black(look: _Look) -> Mask:
    neutral = look.neutral()
    alike = neutral & (look.mean > BLACK)
    core = ndi.binary_propagation(look.core(alike), EIGHT_CONNECTED, alike)
    return look.on_glass(look.grown(core, neutral & (look.mean > BLACK / 2)), 0.0)


def _coloured(ink: Ink, look: _Look) -> Mask:
    alike = look.within(ink.sure) & (look.mean > ink.faint)
    core = look.core(alike & (look.mean > ink.dense))
    if not core.any() or _is_stain(alike, core, look):
        return np.zeros_like(core)
    maybe = look.within(ink.maybe) & (look.mean > ink.faint)
    if np.count_nonzero(maybe & ~core) > MIXED_SHARE * look.matter.size:
        grown = look.grown(core, core)
    else:
        grown = look.grown(ndi.binary_propagation(core, EIGHT_CONNECTED, alike), maybe)
    return look.on_glass(grown, ink.on_glass)


def _is_stain(alike: Mask, core: Mask, look: _Look) -> bool:
    """Whether a hue is the slide's stain: most matter has it, and no part of it stands out like ink."""
    hue = np.count_nonzero(alike)
    if look.stroke is NARROW:
        return bool(hue > MIXED_SHARE * look.matter.size and np.count_nonzero(core) < SURE_SHARE * hue)
    if hue <= STAIN_SHARE * look.matter.size:
        return False
    rest = look.mean[(look.mean > MATTER) & ~core]
    stands_out = not rest.size or np.median(look.mean[core]) > CONTRAST * np.median(rest)
    is_even = look.mpp <= FINE_MPP and np.count_nonzero(core) > SURE_SHARE * hue
    return not (stands_out or is_even)


def _touching_glass(ink: Mask, glass: Mask, share: float) -> Mask:
    labels, count = ndi.label(ink, structure=EIGHT_CONNECTED)
    around = ndi.maximum_filter(labels, 5)
    rim = (around > 0) & ~ink
    rims = np.bincount(around[rim], minlength=count + 1)
    open_rims = np.bincount(around[rim & glass], minlength=count + 1)
    keep = open_rims >= share * np.maximum(rims, 1)
    keep[0] = False
    return np.asarray(keep[labels])
