"""What lies on top of tissue: red blood cells, dust, a pen mark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.demo.noise import Array

Pixels = NDArray[np.uint8]


def add_red_cells(picture: Pixels, places: Sequence[tuple[float, float]], rng: np.random.Generator) -> None:
    """Lay red blood cells (7 micrometres, paler in the middle) over the picture at (x, y), in place."""
    y, x = np.mgrid[-9:10, -9:10]
    for centre_x, centre_y in places:
        radius = np.hypot(x * rng.uniform(0.9, 1.15), y)
        alpha = np.clip((rng.uniform(5.4, 6.8) - radius) / 1.2 + 0.5, 0, 1) * (0.75 + 0.25 * np.clip(radius / 4, 0, 1))
        _absorb(picture, round(centre_x), round(centre_y), alpha.astype(np.float32), (0.08, 0.72, 0.60))


def add_dust(picture: Pixels, count: int, rng: np.random.Generator) -> None:
    """Scatter specks and short fibres of dust over the whole picture, in place."""
    for _ in range(count):
        half = int(rng.integers(4, 26))
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
        turn, thin = rng.uniform(0, np.pi), rng.uniform(0.06, 0.7)
        along = x * np.cos(turn) + y * np.sin(turn)
        across = y * np.cos(turn) - x * np.sin(turn) + along**2 * rng.uniform(-0.02, 0.02)
        shape = 1 - np.hypot(along / half, across / (half * thin))
        alpha = np.clip(shape * half * thin / rng.uniform(1.0, 4.0), 0, 1)
        strength = rng.uniform(0.15, 1.1)
        place = int(rng.integers(0, picture.shape[1])), int(rng.integers(0, picture.shape[0]))
        _absorb(picture, *place, alpha, (strength, strength, 0.9 * strength))


def add_pen_mark(picture: Pixels, ink: tuple[float, float, float], rng: np.random.Generator) -> None:
    """Draw a felt-pen stroke along the upper left of the picture, in place; `ink` is its optical density."""
    height, width = picture.shape[:2]
    start, end = np.array([0.04 * width, 0.30 * height]), np.array([0.30 * width, 0.05 * height])
    bend = (end - start)[::-1] * [-1, 1] * rng.uniform(-0.15, -0.05)
    for part in np.linspace(0, 1, 90):
        x, y = start + part * (end - start) + 4 * part * (1 - part) * bend
        half = 46
        rows, columns = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
        edge = 38 + 5 * np.sin(part * 9) - np.hypot(columns, rows)
        _absorb(picture, round(x), round(y), np.clip(edge / 6, 0, 1) * 0.3, ink)


def _absorb(picture: Pixels, x: int, y: int, alpha: Array, density: tuple[float, float, float]) -> None:
    """Darken the square around (x, y) by an optical density scaled with `alpha`, clipped to the picture."""
    half = alpha.shape[0] // 2
    rows = slice(max(y - half, 0), min(y + half + 1, picture.shape[0]))
    columns = slice(max(x - half, 0), min(x + half + 1, picture.shape[1]))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    part = alpha[rows.start - y + half : rows.stop - y + half, columns.start - x + half : columns.stop - x + half]
    picture[rows, columns] = picture[rows, columns] * np.exp(-part[..., None] * np.array(density, np.float32))
