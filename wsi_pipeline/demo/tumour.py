"""Tumour regions: crowded nests of large, unequal nuclei, solid or cribriform, with thin bands of stroma between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.demo.canvas import Canvas
from wsi_pipeline.demo.layout import STEP, Layout
from wsi_pipeline.demo.noise import Array, Field, scatter, smooth_noise
from wsi_pipeline.demo.nuclei import press

FINE = 4
"""Pixels per cell of the grid that nests are drawn on."""


def paint_tumour(canvas: Canvas, layout: Layout, rng: np.random.Generator) -> None:
    """Paint all tumour regions of the layout."""
    regions = ndimage.label(layout.tumour.values > 0)[0]
    for rows, columns in ndimage.find_objects(regions):
        box = columns.start * STEP, rows.start * STEP, columns.stop * STEP, rows.stop * STEP
        _region(canvas, layout, box, rng)


def _region(canvas: Canvas, layout: Layout, box: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    spot = canvas.clipped(*box)
    if spot is None:
        return
    window, x, y = spot
    nest, hole = _nests(layout, box, rng)
    points = scatter((x.size, y.size), rng.uniform(19.0, 24.0), 0.30, rng)
    points = points[(points >= 0).all(1) & (points[:, 0] < x.size) & (points[:, 1] < y.size)]
    owner = _owners(points, (y.size, x.size))
    everywhere = slice(0, y.size), slice(0, x.size)
    depth, lumen = nest.block(*everywhere), hole.block(*everywhere)
    grain = smooth_noise((y.size, x.size), 1.3, rng)
    tone = ndimage.uniform_filter(rng.normal(0, 0.08, len(points) + 1).astype(np.float32)[owner], 5)
    border = _borders(owner)
    alpha = np.clip((depth + 1.2 * grain) / 1.6 + 0.5, 0, 1)
    canvas.blend(
        window, alpha, rng.uniform(0.10, 0.22) + 0.6 * tone + 0.03 * grain, 0.50 + tone + 0.05 * grain - 0.12 * border
    )
    mucus = 0.07 + 0.06 * grain
    canvas.blend(window, np.clip((lumen + 1.5 * grain) / 2 + 0.5, 0, 1), 0.3 * mucus, mucus)
    _cells(canvas, points, np.minimum(depth, -2 - lumen), box, rng)


def _nests(layout: Layout, box: tuple[int, int, int, int], rng: np.random.Generator) -> tuple[Field, Field]:
    """Depth inside the nests and inside the lumens punched out of them, pixels, negative outside."""
    shape = (box[3] - box[1]) // FINE, (box[2] - box[0]) // FINE
    bands = np.abs(smooth_noise(shape, 22, rng) + 0.30 * smooth_noise(shape, 7, rng))
    depth = np.clip((bands - rng.uniform(0.10, 0.42)) * 90, -14, 60)
    edge = layout.tumour.block(slice(box[1], box[3]), slice(box[0], box[2]))[FINE // 2 :: FINE, FINE // 2 :: FINE]
    depth = np.minimum(depth, edge[: shape[0], : shape[1]] - 6)
    hole = np.full(shape, -99.0, np.float32)
    sieve = smooth_noise(shape, 26, rng)
    i, j = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    for x, y in scatter((shape[1], shape[0]), 13, 0.35, rng):
        row, column = int(np.clip(y, 0, shape[0] - 1)), int(np.clip(x, 0, shape[1] - 1))
        radius = float(rng.gamma(4, 0.75))
        if sieve[row, column] < 0.35 or depth[row, column] < 4 * radius + 16:
            continue
        rows, columns = slice(max(row - 10, 0), row + 11), slice(max(column - 10, 0), column + 11)
        apart = np.hypot((i[rows, columns] - y) * rng.uniform(0.7, 1.4), j[rows, columns] - x)
        hole[rows, columns] = np.maximum(hole[rows, columns], (radius - apart) * FINE)
    return Field(np.asarray(depth, np.float32), FINE), Field(hole, FINE)


def _owners(points: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.intp]:
    """Index of the nearest point for every pixel (worked out at half resolution): the cells' territories."""
    half = -(-shape[0] // 2), -(-shape[1] // 2)
    label = np.zeros(half, np.intp)
    spots = np.clip((points / 2).astype(int), 0, (half[1] - 1, half[0] - 1))
    label[spots[:, 1], spots[:, 0]] = np.arange(1, len(points) + 1)
    i, j = ndimage.distance_transform_edt(label == 0, return_distances=False, return_indices=True)
    return np.asarray(label[i, j].repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]])


def _borders(owner: NDArray[np.intp]) -> Array:
    """1 along the border between two cells, softened."""
    border = np.zeros(owner.shape, np.float32)
    border[:, 1:] = owner[:, 1:] != owner[:, :-1]
    border[1:] += owner[1:] != owner[:-1]
    return np.asarray(ndimage.uniform_filter(border, 3) * 2, np.float32)


def _cells(
    canvas: Canvas, points: NDArray[np.float64], depth: Array, box: tuple[int, int, int, int], rng: np.random.Generator
) -> None:
    """Press the nuclei: one per cell of a nest, a few mitoses and pyknotic ones among them."""
    there = depth[points[:, 1].astype(int), points[:, 0].astype(int)]
    inside = points[(there > 3.5) & (rng.random(len(points)) < 0.97)] + np.array(box[:2])
    inside = inside + rng.normal(0, 1.2, inside.shape)
    chance, dark = rng.random(len(inside)), rng.uniform(0.1, 0.9)
    for kind, chosen in (
        ("tumour", chance < 0.975 * dark),
        ("vesicular", (chance >= 0.975 * dark) & (chance < 0.975)),
        ("mitosis", (chance >= 0.975) & (chance < 0.987)),
        ("pyknotic", chance >= 0.987),
    ):
        here = inside[chosen]
        press(canvas, kind, here, rng.uniform(0, np.pi, len(here)).astype(np.float32), rng)
