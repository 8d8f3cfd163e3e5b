"""Changes of a patch that keep its meaning: focus, compression, stain, scanner colour, and where the patch lies.

A patch is given with a margin of real pixels around it, so that shifted and rotated patches show tissue and no frame.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

Patch = NDArray[np.uint8]

MARGIN, LEAST_MARGIN = 1 / 8, 16
"""Margin on each side of a patch, as a part of its side and in pixels: enough for the shifts and rotations below."""
HAEMATOXYLIN, EOSIN = (0.650, 0.704, 0.286), (0.072, 0.990, 0.105)
"""Optical densities of the stains in red, green and blue, of unit length (Ruifrok and Johnston 2001)."""


@dataclass(frozen=True)
class Perturbation:
    """One change of one strength.

    kind       what is changed, in words
    strength   how much, in `unit`; the strength `none` of its kind changes nothing
    """

    kind: str
    strength: float
    unit: str

    def apply(self, wide: Patch, side: int, mpp: float) -> Patch:
        """The changed patch (side, side, 3) of a patch with its margin (S, S, 3); `mpp`: micrometres per pixel."""
        kind = KINDS[self.kind]
        if kind.change is None:
            return self.recolour(centre(wide, side))
        return kind.change(wide, side, mpp, self.strength)

    @property
    def of_colour(self) -> bool:
        """Whether each pixel is changed by its colour alone."""
        return KINDS[self.kind].colours is not None

    def recolour(self, picture: Patch) -> Patch:
        """Pixels (..., 3) with their colours changed; unchanged if this change is not of colours."""
        colours = KINDS[self.kind].colours
        return picture if colours is None else colours(picture, self.strength)

    def __str__(self) -> str:
        return f"{self.kind} {self.strength:g}{f' {self.unit}' * bool(self.unit)}"


def centre(wide: Patch, side: int) -> Patch:
    """The patch itself (side, side, 3): the middle of `wide`."""
    start = (wide.shape[0] - side) // 2
    return np.ascontiguousarray(wide[start : start + side, start : start + side])


def blurred(wide: Patch, side: int, mpp: float, sigma_um: float) -> Patch:
    """Out of focus: a Gaussian of standard deviation `sigma_um` micrometres."""
    if sigma_um == 0:
        return centre(wide, side)
    sigma = sigma_um / mpp
    return centre(_bytes(ndi.gaussian_filter(wide.astype(np.float32), (sigma, sigma, 0))), side)


def compressed(wide: Patch, side: int, mpp: float, quality: float) -> Patch:
    """JPEG of a quality from 1 to 100, colours at half resolution."""
    out = io.BytesIO()
    Image.fromarray(centre(wide, side)).save(out, "JPEG", quality=round(quality), subsampling=2)
    return np.asarray(Image.open(out).convert("RGB"))


def haematoxylin_shifted(pixels: Patch, factor: float) -> Patch:
    """Haematoxylin `factor` times as strong; pixels (..., 3)."""
    return _restained(pixels, np.array([factor, 1.0, 1.0]))


def eosin_shifted(pixels: Patch, factor: float) -> Patch:
    """Eosin `factor` times as strong."""
    return _restained(pixels, np.array([1.0, factor, 1.0]))


def warmed(pixels: Patch, part: float) -> Patch:
    """White balance of another scanner: red times 1 + part, blue divided by it."""
    gain = np.array([1 + part, 1.0, 1 / (1 + part)], np.float32)
    return _bytes(pixels * gain)


def gamma_changed(pixels: Patch, gamma: float) -> Patch:
    """Tone curve of another scanner: values of 0 to 1 to the power `gamma`."""
    return _bytes(255 * (pixels / np.float32(255)) ** np.float32(gamma))


def shifted(wide: Patch, side: int, mpp: float, pixels: float) -> Patch:
    """The patch that lies `pixels` further right and down."""
    start, by = (wide.shape[0] - side) // 2, round(pixels)
    if not 0 <= start + by <= wide.shape[0] - side:
        raise ValueError(f"a shift of {by} pixels needs a margin that large, got {start}")
    return np.ascontiguousarray(wide[start + by : start + by + side, start + by : start + by + side])


def rotated(wide: Patch, side: int, mpp: float, degrees: float) -> Patch:
    """The patch turned about its middle, counter-clockwise; quarter turns are exact, others bilinear."""
    if degrees % 90 == 0:
        return np.ascontiguousarray(np.rot90(centre(wide, side), round(degrees / 90)))
    turned = Image.fromarray(wide).rotate(degrees, Image.Resampling.BILINEAR)
    return centre(np.asarray(turned), side)


@dataclass(frozen=True)
class Kind:
    """A kind of change: unit, the strength that changes nothing (None: there is none), those tried, and a function.

    change    of a patch with its margin, its side, mpp and the strength
    colours   of pixels (..., 3) and the strength, for a change of each pixel by its colour alone
    """

    unit: str
    none: float | None
    strengths: tuple[float, ...]
    change: Callable[[Patch, int, float, float], Patch] | None = None
    colours: Callable[[Patch, float], Patch] | None = None


KINDS = {
    "blur": Kind("um", 0.0, (0.25, 0.5, 1.0, 2.0), change=blurred),
    "jpeg": Kind("quality", None, (90, 70, 50, 30), change=compressed),
    "haematoxylin": Kind("times", 1.0, (0.9, 1.1, 0.7, 1.3), colours=haematoxylin_shifted),
    "eosin": Kind("times", 1.0, (0.9, 1.1, 0.7, 1.3), colours=eosin_shifted),
    "white balance": Kind("red over green", 0.0, (-0.05, 0.05, -0.1, 0.1), colours=warmed),
    "gamma": Kind("", 1.0, (0.9, 1.1, 0.75, 1.3), colours=gamma_changed),
    "shift": Kind("px", 0.0, (1, 4, 16), change=shifted),
    "rotation": Kind("degrees", 0.0, (5, 10, 90, 180), change=rotated),
}
"""All kinds. The strengths reach from what careful laboratories differ by to what a reader would complain about."""


def all_perturbations() -> tuple[Perturbation, ...]:
    """Every kind in every strength, in order."""
    return tuple(
        Perturbation(name, float(strength), kind.unit) for name, kind in KINDS.items() for strength in kind.strengths
    )


def margin_px(side: int) -> int:
    """Margin in pixels that a patch of this side is read with: enough for the largest shift in any case."""
    return max(LEAST_MARGIN, round(side * MARGIN))


def _restained(patch: Patch, factors: NDArray[np.float64]) -> Patch:
    if (factors == 1).all():
        return patch
    first, second = np.array(HAEMATOXYLIN), np.array(EOSIN)
    third = np.cross(first, second)
    stains = np.stack([first, second, third / np.linalg.norm(third)])
    density = -np.log10(np.maximum(patch, 1) / 255.0)
    amounts = density @ np.linalg.inv(stains)
    # Only what a stain adds is scaled: a negative amount is colour that the two stains do not explain.
    change = np.maximum(amounts, 0) * (factors - 1)
    return _bytes(255 * 10 ** -(density + change @ stains))


def _bytes(values: NDArray[np.floating]) -> Patch:
    found: Patch = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return found
