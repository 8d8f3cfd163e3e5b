"""Rings of cells: regular glands with basal nuclei round an open lumen, and blood vessels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.demo.canvas import Canvas, Window
from wsi_pipeline.demo.layout import Blob, Layout
from wsi_pipeline.demo.noise import Array, polar, smooth_noise
from wsi_pipeline.demo.nuclei import press


def paint_glands(canvas: Canvas, layout: Layout, rng: np.random.Generator) -> None:
    """Paint every gland of the layout: basement membrane, columnar cells, lumen, one basal nucleus per cell."""
    haze = smooth_noise((256, 256), 2.5, rng)
    for blob in layout.glands:
        spot = _spot(canvas, blob, 8)
        if spot is not None:
            _gland(canvas, blob, spot, haze, rng)


def paint_vessels(canvas: Canvas, layout: Layout, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Paint vessels: a muscular wall round an empty lumen lined by flat nuclei. Returns where red cells lie (x, y)."""
    blood: list[tuple[float, float]] = []
    haze = smooth_noise((256, 256), 1.5, rng)
    for blob in layout.vessels:
        spot = _spot(canvas, blob, 8)
        if spot is not None:
            blood += _vessel(canvas, blob, spot, haze, rng)
    return blood


def _spot(canvas: Canvas, blob: Blob, grow: int) -> tuple[Window, Array, Array] | None:
    """Window around a blob with the depth inside it and the angle of every pixel."""
    half = int(blob.reach) + grow
    x, y = int(blob.x), int(blob.y)
    clipped = canvas.clipped(x - half, y - half, x + half, y + half)
    if clipped is None:
        return None
    window, columns, rows = clipped
    dx, dy = np.broadcast_arrays(columns - np.float32(blob.x), rows - np.float32(blob.y))
    return (window, *polar(blob.radii, dx, dy))


def _on_ring(blob: Blob, theta: NDArray[np.floating], depth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points x, y at given angles and depths inside a blob's outline."""
    radius = np.interp(theta, np.linspace(0, 2 * np.pi, len(blob.radii)), blob.radii, period=2 * np.pi) - depth
    return np.stack([blob.x + radius * np.cos(theta), blob.y + radius * np.sin(theta)], axis=-1)


def _gland(
    canvas: Canvas, blob: Blob, spot: tuple[Window, Array, Array], haze: Array, rng: np.random.Generator
) -> None:
    window, depth, theta = spot
    mean = float(blob.radii.mean())
    height = min(rng.uniform(22, 34), 0.6 * mean)
    cells = max(int(2 * np.pi * mean / rng.uniform(9.5, 11.5)), 8)
    position = theta * np.float32(cells / (2 * np.pi))
    cell = position.astype(np.int32) % cells
    across = position - np.floor(position) - np.float32(0.5)
    tone = rng.normal(0, 0.07, cells).astype(np.float32)[cell]
    top = height + rng.normal(0, 0.9, cells).astype(np.float32)[cell]
    folds = np.cos(theta * rng.integers(2, 5) + rng.uniform(0, 6)) + np.cos(theta * rng.integers(4, 8))
    top = top + 0.06 * height * folds
    border = np.clip((np.abs(across) - 0.40) * 10, 0, 1) * np.clip(depth / 8, 0, 1)
    grain = haze[: depth.shape[0], : depth.shape[1]]
    eosin = 0.50 + tone + 0.07 * grain + 0.10 * np.clip(depth / height, 0, 1) - 0.14 * border
    haematoxylin = 0.30 - 0.14 * np.clip(depth / height, 0, 1) + 0.4 * tone + 0.03 * grain - 0.05 * border
    _goblets(eosin, haematoxylin, depth / height, across, rng.random(cells)[cell] < rng.choice([0.0, 0.15, 0.5]))
    canvas.blend(window, np.clip((depth + 4) / 1.5, 0, 1) * np.clip((1 - depth) / 3, 0, 1) * 0.7, 0.14, 0.74)
    canvas.blend(window, np.clip(depth / 1.5 + 0.5, 0, 1), haematoxylin, eosin)
    lumen = np.clip((depth - top) / 1.6 + 0.5, 0, 1)
    mucus = np.clip(rng.choice([0.0, 0.05, 0.16]) * (1 + 0.9 * grain), 0, 0.5)
    canvas.blend(window, lumen, 0.35 * mucus, mucus)
    angles = (np.arange(cells) + 0.5 + rng.normal(0, 0.10, cells)) * (2 * np.pi / cells)
    basal = _on_ring(blob, angles, np.clip(rng.normal(9.5, 1.6, cells), 6.5, 0.6 * height))
    press(canvas, "epithelial", basal, angles + rng.normal(0, 0.12, cells), rng)


def _goblets(eosin: Array, haematoxylin: Array, depth: Array, across: Array, filled: NDArray[np.bool_]) -> None:
    """Clear out mucin vacuoles in the upper half of the cells chosen as goblet cells."""
    inside = 1 - (across / 0.46) ** 2 - ((depth - 0.74) / 0.25) ** 2
    amount = np.clip(inside * 4, 0, 0.85) * filled
    eosin += amount * (0.05 - eosin)
    haematoxylin += amount * (0.11 - haematoxylin)


def _vessel(
    canvas: Canvas, blob: Blob, spot: tuple[Window, Array, Array], haze: Array, rng: np.random.Generator
) -> list[tuple[float, float]]:
    window, depth, _ = spot
    mean = float(blob.radii.mean())
    wall = rng.uniform(0.22, 0.5) * mean
    grain = haze[: depth.shape[0], : depth.shape[1]]
    layers = 0.10 * np.sin(depth * 1.1 + 1.5 * grain)
    canvas.blend(window, np.clip(depth / 3 + 0.5, 0, 1) * 0.9, 0.14 + 0.3 * layers, 0.70 + layers + 0.05 * grain)
    canvas.blend(window, np.clip((depth - wall) / 1.4, 0, 1), 0.01, 0.015)
    inner = max(int(2 * np.pi * (mean - wall) / 26), 3)
    theta = (np.arange(inner) + rng.uniform(-0.3, 0.3, inner)) * (2 * np.pi / inner)
    press(canvas, "endothelial", _on_ring(blob, theta, np.full(inner, wall - 1.0)), theta + np.pi / 2, rng)
    if wall > 9:
        muscle = int(mean * wall / 60)
        theta = rng.uniform(0, 2 * np.pi, muscle)
        press(canvas, "spindle", _on_ring(blob, theta, rng.uniform(3, wall - 5, muscle)), theta + np.pi / 2, rng)
    lumen = mean - wall - 8
    if lumen < 5:
        return []
    count = int(rng.choice([0.0, 0.4, 1.0]) * (lumen / 6.5) ** 2)
    theta, depths = rng.uniform(0, 2 * np.pi, count), wall + 7 + lumen * (1 - np.sqrt(rng.random(count)))
    return [(float(x), float(y)) for x, y in _on_ring(blob, theta, depths)]
