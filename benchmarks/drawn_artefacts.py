"""Artefacts of known strength drawn onto clean pictures: defocus, folds, rims of bubbles and glass edges, pen.

All act on light: what is drawn on the glass adds its optical density to the density that is there (Beer and Lambert).
Every function returns the new picture and where it was drawn, so that the truth of every patch is known.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Plane = NDArray[np.float32]

INKS = {
    "blue": (1.00, 0.45, 0.10),
    "green": (0.95, 0.35, 0.55),
    "red": (0.08, 0.85, 0.75),
    "black": (1.00, 1.00, 1.00),
}
"""Optical densities of felt-tip inks in red, green and blue, relative to the densest."""


def defocused(patch: Rgb, sigma_px: float, quality: int, rng: np.random.Generator) -> Rgb:
    """A patch seen through a Gaussian kernel, with a sensor's noise of one grey level, compressed as a scanner does."""
    blurred = ndi.gaussian_filter(patch.astype(np.float32), (sigma_px, sigma_px, 0), mode="nearest")
    return compressed(_to_bytes(blurred + rng.normal(0, 1, blurred.shape)), quality)


def compressed(rgb: Rgb, quality: int) -> Rgb:
    """Once through JPEG."""
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out).convert("RGB"))


def density_of(rgb: Rgb, glass: Plane) -> Plane:
    """Optical density (h, w, 3) over the colour of the glass (3,)."""
    return np.log10((glass + 1) / (rgb.astype(np.float32) + 1))


def picture_of(density: Plane, glass: Plane) -> Rgb:
    """The reverse of `density_of`."""
    return _to_bytes((glass + 1) * 10.0**-density - 1)


def paler(rgb: Rgb, part: float) -> Rgb:
    """The same picture with `part` of its optical density: as sharp, but faintly stained."""
    glass = np.full(3, 245, np.float32)
    return picture_of(density_of(rgb, glass) * np.float32(part), glass)


def fold(rgb: Rgb, glass: Plane, tissue: Mask, width_px: float, rng: np.random.Generator) -> tuple[Rgb, Mask]:
    """Tissue doubled along a curve: the density of the tissue beside it is added, mirrored at the border."""
    distance = _distance_to_curve(tissue, rng, length=12 * width_px + 60)
    density = density_of(rgb, glass)
    shift = round(1.5 * width_px) + 1
    beside = np.roll(density, (shift, shift // 2), axis=(0, 1))
    there = np.clip((width_px / 2 - distance) + 0.5, 0, 1).astype(np.float32) * tissue
    doubled = np.maximum(beside, 0) * there[..., None]
    return picture_of(density + doubled, glass), (there > 0.5)


def bubble(rgb: Rgb, glass: Plane, tissue: Mask, rim_px: float, radius_px: float, rng: np.random.Generator
           ) -> tuple[Rgb, Mask]:  # fmt: skip
    """The dark rim of an air bubble, an ellipse of which most lies on tissue; inside, contrast is a little lower."""
    y, x = _somewhere(tissue, rng)
    rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[1]].astype(np.float32)
    angle, flat = rng.uniform(0, np.pi), rng.uniform(0.7, 1.0)
    across = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    along = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    wobble = 1 + 0.06 * np.sin(3 * np.arctan2(along, across) + rng.uniform(0, 6))
    distance = (np.hypot(across, along / flat) / wobble - radius_px).astype(np.float32)
    rim = _ridge(distance, rim_px) * np.float32(rng.uniform(0.5, 0.9))
    density = density_of(rgb, glass)
    density *= np.where(distance < 0, np.float32(0.85), np.float32(1))[..., None]
    return picture_of(density + rim[..., None], glass), np.abs(distance) < rim_px / 2


def glass_edge(rgb: Rgb, glass: Plane, tissue: Mask, rim_px: float, rng: np.random.Generator) -> tuple[Rgb, Mask]:
    """The edge of the cover glass: a straight dark line over the whole picture, through tissue."""
    y, x = _somewhere(tissue, rng)
    angle = rng.uniform(-0.2, 0.2) + rng.choice([0, np.pi / 2])
    rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[1]].astype(np.float32)
    distance = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    line = _ridge(distance, rim_px) * np.float32(rng.uniform(0.4, 0.8))
    return picture_of(density_of(rgb, glass) + line[..., None], glass), np.abs(distance) < rim_px / 2


def pen(rgb: Rgb, glass: Plane, tissue: Mask, ink: str, width_px: float, rng: np.random.Generator) -> tuple[Rgb, Mask]:
    """A stroke of a felt-tip pen across tissue, even along its middle and thinner at its rim."""
    distance = _distance_to_curve(tissue, rng, length=10 * width_px)
    there = np.clip((width_px / 2 - distance) / (0.15 * width_px), 0, 1).astype(np.float32)
    even = ndi.gaussian_filter(rng.normal(0, 1, rgb.shape[:2]).astype(np.float32), 4)
    amount = there * np.float32(rng.uniform(0.7, 1.3)) * (1 + 0.1 * even / max(float(even.std()), 1e-6))
    added = amount[..., None] * np.asarray(INKS[ink], np.float32)
    return picture_of(density_of(rgb, glass) + added, glass), there > 0.5


def _ridge(distance: Plane, width: float) -> Plane:
    return np.exp(-0.5 * (distance / (width / 2.355)) ** 2).astype(np.float32)


def _somewhere(tissue: Mask, rng: np.random.Generator) -> tuple[int, int]:
    places = np.argwhere(tissue)
    y, x = places[rng.integers(len(places))]
    return int(y), int(x)


def _distance_to_curve(tissue: Mask, rng: np.random.Generator, length: float) -> Plane:
    """Distance of every pixel to a smooth open curve of about `length` pixels, whose middle lies in tissue."""
    y, x = _somewhere(tissue, rng)
    steps = np.linspace(-0.5, 0.5, 400)
    turn = rng.uniform(0, 2 * np.pi) + rng.uniform(-1.5, 1.5) * steps * 2 + 0.3 * np.sin(8 * steps + rng.uniform(0, 6))
    step = length / len(steps)
    xs, ys = np.cumsum(np.cos(turn)) * step, np.cumsum(np.sin(turn)) * step
    xs, ys = xs - xs[200] + x, ys - ys[200] + y
    off = np.ones(tissue.shape, np.bool_)
    inside = (xs >= 0) & (ys >= 0) & (xs < tissue.shape[1] - 1) & (ys < tissue.shape[0] - 1)
    off[np.rint(ys[inside]).astype(int), np.rint(xs[inside]).astype(int)] = False
    return ndi.distance_transform_edt(off).astype(np.float32)


def _to_bytes(values: NDArray[np.floating]) -> Rgb:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
