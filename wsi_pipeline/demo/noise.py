"""Smooth random fields and scattered points, the building blocks of synthetic tissue.

Fields are made coarse (one value per `step` pixels) and brought to full resolution block by block with
cubic B-splines written as two matrix products, which costs a few nanoseconds per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Field:
    """A smooth scalar field known every `step` pixels: values[i, j] is centred on pixel (j + 0.5) * step - 0.5."""

    values: Array
    step: int

    def block(self, rows: slice, columns: slice) -> Array:
        """The field at full resolution on a rectangle of pixels, float32 (rows, columns)."""
        upper, first = _spline(rows.start, rows.stop, self.step, self.values.shape[0])
        across, left = _spline(columns.start, columns.stop, self.step, self.values.shape[1])
        part = self.values[first : first + upper.shape[1], left : left + across.shape[1]]
        return np.asarray(upper @ part @ across.T, dtype=np.float32)

    def at(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> Array:
        """The nearest known value at pixel positions; positions outside take the edge's value."""
        i = np.clip((y / self.step).astype(np.intp), 0, self.values.shape[0] - 1)
        j = np.clip((x / self.step).astype(np.intp), 0, self.values.shape[1] - 1)
        return np.asarray(self.values[i, j])


@lru_cache(maxsize=256)
def _spline(start: int, stop: int, step: int, count: int) -> tuple[Array, int]:
    """Cubic B-spline weights (pixels, inputs) for a run of pixels, and the index of the first input used."""
    position = (np.arange(start, stop) + 0.5) / step - 0.5
    low, high = int(np.floor(position[0])) - 1, int(np.floor(position[-1])) + 3
    distance = np.abs(position[:, None] - np.arange(low, high)[None, :])
    near = 2 / 3 - distance * distance * (1 - distance / 2)
    weights = np.where(distance < 1, near, np.where(distance < 2, (2 - distance) ** 3 / 6, 0.0))
    inside = np.clip(np.arange(low, high), 0, count - 1)
    first = int(inside[0])
    folded = np.zeros((len(position), int(inside[-1]) - first + 1), np.float32)
    for column, target in enumerate(inside - first):
        folded[:, target] += weights[:, column]
    return folded, first


def smooth_noise(shape: tuple[int, int], sigma: float | tuple[float, float], rng: np.random.Generator) -> Array:
    """Gaussian random field of mean 0 and deviation 1, float32, seamless; `sigma` is its blur (rows, columns)."""
    sigmas = (sigma, sigma) if isinstance(sigma, float | int) else sigma
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    rows = np.exp(-2 * (np.pi * sigmas[0] * np.fft.fftfreq(shape[0])) ** 2)
    columns = np.exp(-2 * (np.pi * sigmas[1] * np.fft.rfftfreq(shape[1])) ** 2)
    spectrum *= rows[:, None] * columns[None, :]
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=shape)
    return np.asarray(field / max(float(field.std()), 1e-9), dtype=np.float32)


def warp_rows(texture: Array, shift: Array) -> Array:
    """Slide every column of a seamless texture along its rows by `shift` pixels (same shape); stays seamless."""
    rows, columns = np.mgrid[: texture.shape[0], : texture.shape[1]]
    warped = ndimage.map_coordinates(texture, [rows + shift, columns], order=1, mode="grid-wrap")
    return np.asarray(warped, dtype=np.float32)


def scatter(size: tuple[float, float], spacing: float, jitter: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points spread evenly but irregularly over (width, height): a hexagonal grid, each point moved at random.

    spacing     distance between neighbours in pixels
    jitter      maximum displacement as a fraction of the spacing, 0 to 0.5

    Returns (N, 2) positions x, y; some lie up to `spacing` outside.
    """
    height = spacing * 0.866
    rows, columns = int(size[1] / height) + 2, int(size[0] / spacing) + 2
    i, j = np.mgrid[:rows, :columns]
    points = np.stack([(j + 0.5 * (i % 2)) * spacing, i * height], axis=-1).reshape(-1, 2)
    return np.asarray(points + rng.uniform(-jitter, jitter, points.shape) * spacing)


def blob_radii(
    radius: float,
    aspect: float,
    roughness: float,
    rng: np.random.Generator,
    *,
    turn: float | None = None,
    angles: int = 128,
) -> Array:
    """Radius of a closed wobbly outline at `angles` even angles: an ellipse with a few harmonics.

    radius, aspect   mean radius in pixels, and length to width
    turn             direction of the long axis in radians, random if not given
    """
    theta = np.linspace(0, 2 * np.pi, angles, endpoint=False)
    turn = rng.uniform(0, np.pi) if turn is None else turn
    ellipse = 1 / np.sqrt(np.cos(theta - turn) ** 2 / aspect + np.sin(theta - turn) ** 2 * aspect)
    wobble = np.ones(angles)
    for order in range(2, 8):
        wobble += roughness / order * rng.standard_normal() * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    return np.asarray(radius * ellipse * np.clip(wobble, 0.4, 1.8), dtype=np.float32)


def polar(radii: Array, dx: Array, dy: Array) -> tuple[Array, Array]:
    """Depth inside a blob (pixels, negative outside) and angle (0 to 2 pi) of positions relative to its centre."""
    theta = np.arctan2(dy, dx) % np.float32(2 * np.pi)
    position = theta * np.float32(len(radii) / (2 * np.pi))
    low = position.astype(np.int32)
    part = position - low
    wrapped = np.append(radii, radii[:2])
    edge = wrapped[low] * (1 - part) + wrapped[low + 1] * part
    return np.asarray(edge - np.hypot(dx, dy), dtype=np.float32), theta
