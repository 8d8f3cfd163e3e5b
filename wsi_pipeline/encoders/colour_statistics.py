"""Stain and texture statistics of one RGB patch as a fixed vector of named numbers: pure functions on arrays.

Layout (`feature_names` gives every name, in order):

    hed moments     3 stains (haematoxylin, eosin, dab) x mean, std, skew, kurtosis
    hed histograms  3 stains x 16 bins, fractions of the pixels
    rgb moments     3 channels x mean, std, skew, kurtosis
    hsv moments     saturation and value x the same four; hue as an angle: cosine, sine, concentration
    lbp histograms  haematoxylin and grey x radius 1 and radius 3 x 10 uniform patterns, fractions
    gradients       haematoxylin and grey x mean, std, skew, 90th percentile, coherence

Sources: stain separation by Ruifrok and Johnston 2001 (matrix of scikit-image); local binary patterns by Ojala,
Pietikainen and Maenpaa 2002 (uniform, rotation invariant); coherence of the structure tensor by Bigun 1987.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import feature
from skimage.color import hed_from_rgb

Floats = NDArray[np.float32]

STAINS = ("haematoxylin", "eosin", "dab")
MOMENTS = ("mean", "std", "skew", "kurtosis")
HED_BINS = 16
HED_TOP = (0.25, 0.12, 0.20)
"""Density of each stain, in scikit-image's units, that counts as 1; what is denser counts as 1 too.

About the 99.9th percentile of stained pixels on real H&E and IHC slides, so that values fill 0..1.
"""
LBP_KINDS = ((1, 8), (3, 8))
"""Radius in pixels and number of neighbours."""
TEXTURE_PX = 128
"""Texture is measured on the patch shrunk to this side (smaller patches stay): its cost no longer grows with P."""
VERSION = 1
"""Goes into the fingerprint: raise it whenever a value changes its meaning."""

_FLAT = 1e-3
"""Standard deviation (of values scaled to about 0..1) below which a channel has no shape to speak of."""
_LOG = np.log(np.maximum(np.arange(256, dtype=np.float64) / 255.0, 1e-6)) / math.log(1e-6)
"""Optical density of a byte as scikit-image's `separate_stains` scales it: 0 for white, 1 for black."""
_DENSITY = _LOG.astype(np.float32)
_UNMIX = (hed_from_rgb / np.array(HED_TOP)).T.astype(np.float32)


def feature_names() -> tuple[str, ...]:
    """Name of every value of `describe_patch`, in order."""
    return tuple(_names())


def describe_patch(patch: NDArray[np.uint8]) -> Floats:
    """Statistics float32 (D,) of a patch uint8 (P, P, 3); finite for every input, constant patches included."""
    planes = np.ascontiguousarray(patch.transpose(2, 0, 1))
    small = shrink(planes, TEXTURE_PX)
    stains = separate_stains(planes)
    texture = (separate_stains(small)[0], grey(small))
    parts = [
        moments(stains).ravel(),
        *(_histogram(stain) for stain in stains),
        moments(planes.astype(np.float32) / np.float32(255)).ravel(),
        hsv_statistics(small),
        *(lbp_histogram(_as_bytes(image), *kind) for image in texture for kind in LBP_KINDS),
        *(gradient_statistics(image) for image in texture),
    ]
    return np.concatenate(parts).astype(np.float32)


def separate_stains(planes: NDArray[np.uint8]) -> Floats:
    """Haematoxylin, eosin and DAB densities (3, h, w) in 0..1 of RGB planes (3, h, w).

    scikit-image's rgb2hed, read from a table of logarithms, divided by HED_TOP.
    """
    density = _DENSITY[planes].reshape(3, -1)
    stains: Floats = np.clip(_UNMIX @ density, 0.0, 1.0).reshape(planes.shape)
    return stains


def grey(planes: NDArray[np.uint8]) -> Floats:
    """Luma (h, w) in 0..1 of RGB planes (3, h, w), ITU-R BT.601 weights."""
    weights = np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255)
    return np.tensordot(weights, planes.astype(np.float32), axes=1)


def moments(channels: Floats) -> Floats:
    """Mean, std, skew and kurtosis (C, 4) of channels (C, ...).

    Skewness is given as asinh(skew) and kurtosis as log(kurtosis) (normal: 1.10), so that a few outlying pixels
    move them little; both are 0 for a channel that is constant.
    """
    values = channels.reshape(len(channels), -1)
    mean = values.mean(axis=1)
    centred = values - mean[:, None]
    square = centred * centred
    std = np.sqrt(square.mean(axis=1))
    shaped = std > _FLAT
    safe = np.where(shaped, std, 1.0).astype(np.float64)
    skew = np.where(shaped, np.arcsinh((square * centred).mean(axis=1) / safe**3), 0.0)
    kurtosis = np.where(shaped, np.log(np.maximum((square * square).mean(axis=1) / safe**4, 1.0)), 0.0)
    return np.stack([mean, std, skew, kurtosis], axis=1).astype(np.float32)


def hsv_statistics(planes: NDArray[np.uint8]) -> Floats:
    """Moments of saturation and value, then hue as (cosine, sine, concentration), weighted by chroma; (11,).

    Concentration is 1 where all coloured pixels share one hue and 0 where hues cancel or nothing is coloured.
    """
    red, green, blue = planes.reshape(3, -1).astype(np.float32) / np.float32(255)
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    saturation = np.divide(chroma, value, out=np.zeros_like(value), where=value > 0)
    # Hue as the angle in the plane across the grey axis; its length is about the chroma, so grey pixels weigh nothing.
    along = red - np.float32(0.5) * (green + blue)
    across = np.float32(math.sqrt(0.75)) * (green - blue)
    x, y, total = (float(part.mean()) for part in (along, across, np.hypot(along, across)))
    length = math.hypot(x, y)
    angle = (x / length, y / length, length / total) if total > _FLAT and length > 1e-6 else (0.0, 0.0, 0.0)
    return np.concatenate([moments(np.stack([saturation, value])).ravel(), angle]).astype(np.float32)


def lbp_histogram(image: NDArray[np.uint8], radius: int, neighbours: int) -> Floats:
    """Fractions (neighbours + 2,) of the rotation-invariant uniform patterns in a grey image."""
    pattern: Any = feature.local_binary_pattern
    codes = pattern(image, neighbours, radius, method="uniform").astype(np.int64)
    return _fractions(codes, neighbours + 2)


def gradient_statistics(image: Floats) -> Floats:
    """Mean, std, asinh(skew) and 90th percentile of the gradient's length, and its coherence; (5,).

    Coherence is 1 if all gradients point one way (fibres) and 0 if they have no direction.
    """
    if min(image.shape) < 2:
        return np.zeros(5, np.float32)
    down, right = np.gradient(image)
    length = np.hypot(down, right)
    xx, yy, xy = (float((a * b).mean()) for a, b in ((right, right), (down, down), (right, down)))
    coherence = math.hypot(xx - yy, 2 * xy) / (xx + yy) if xx + yy > 1e-9 else 0.0
    mean, std, skew, _ = moments(length[None])[0]
    return np.array([mean, std, skew, np.percentile(length, 90), coherence], np.float32)


def shrink(planes: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Planes (3, P, P) averaged over whole blocks so that P comes down to `side`, or as near above it as it can."""
    factor = planes.shape[1] // side
    if factor < 2:
        return planes
    kept = planes.shape[1] // factor
    blocks = planes[:, : kept * factor, : kept * factor].reshape(3, kept, factor, kept, factor)
    rows = blocks.sum(axis=2, dtype=np.uint16) if factor <= 256 else blocks.sum(axis=2, dtype=np.uint32)
    total = rows.sum(axis=3, dtype=np.uint32)
    area = factor * factor
    return np.asarray((total + area // 2) // area, np.uint8)


def _histogram(channel: Floats) -> Floats:
    bins = np.minimum((channel * np.float32(HED_BINS)).astype(np.int64), HED_BINS - 1)
    return _fractions(bins, HED_BINS)


def _fractions(codes: NDArray[np.int64], length: int) -> Floats:
    counts = np.bincount(codes.ravel(), minlength=length)
    return np.asarray(counts / codes.size, np.float32)


def _as_bytes(image: Floats) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(image, 0.0, 1.0) * 255.0), np.uint8)


def _names() -> Iterator[str]:
    yield from (f"{stain}_{moment}" for stain in STAINS for moment in MOMENTS)
    yield from (f"{stain}_bin{index:02d}" for stain in STAINS for index in range(HED_BINS))
    yield from (f"{channel}_{moment}" for channel in ("red", "green", "blue") for moment in MOMENTS)
    yield from (f"{channel}_{moment}" for channel in ("saturation", "value") for moment in MOMENTS)
    yield from ("hue_cosine", "hue_sine", "hue_concentration")
    for image in ("haematoxylin", "grey"):
        for radius, neighbours in LBP_KINDS:
            yield from (f"{image}_lbp{radius}_{code:02d}" for code in range(neighbours + 2))
    for image in ("haematoxylin", "grey"):
        yield from (f"{image}_gradient_{part}" for part in ("mean", "std", "skew", "p90", "coherence"))
