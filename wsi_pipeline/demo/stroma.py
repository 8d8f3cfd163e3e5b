"""Connective tissue: wavy collagen bundles with clefts between them, fat, and the cells that lie in both."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.demo.canvas import MARGIN, Canvas, blocks
from wsi_pipeline.demo.layout import BACKGROUND, FAT, GLAND, LYMPHOID, STEP, STROMA, TUMOUR, Layout
from wsi_pipeline.demo.noise import Array, scatter, smooth_noise, warp_rows
from wsi_pipeline.demo.nuclei import press

SIDE = 1024
"""Side of the seamless fibre textures, a power of two."""


@cache
def fibres() -> tuple[Array, Array]:
    """Two seamless textures (across, along the fibres): collagen amount around 0.5, and cleft openness 0 to 1."""
    rng = np.random.default_rng(31415)
    shape = (SIDE, SIDE)
    bundles = smooth_noise(shape, (5.5, 42), rng)
    strands = smooth_noise(shape, (1.7, 20), rng)
    fibrils = smooth_noise(shape, (0.7, 7), rng)
    collagen = 0.52 + 0.17 * bundles + 0.12 * strands + 0.07 * fibrils
    ridge = np.abs(smooth_noise(shape, (5, 34), rng) + 0.3 * smooth_noise(shape, (2, 14), rng))
    gaps = smooth_noise(shape, (14, 30), rng)
    cleft = np.exp(-((ridge / 0.16) ** 2)) / (1 + np.exp(-(gaps - 0.3) * 5))
    wave = 5.5 * smooth_noise(shape, (40, 11), rng) + 2.0 * smooth_noise(shape, (20, 5), rng)
    return np.clip(warp_rows(collagen, wave), 0.05, 1.2), np.clip(warp_rows(cleft, wave), 0, 1)


def fibre_index(layout: Layout, rows: slice, columns: slice) -> NDArray[np.int32]:
    """Flat index into the fibre textures for every pixel of a rectangle."""
    u = layout.fibre_u.block(rows, columns).astype(np.int32) & (SIDE - 1)
    v = layout.fibre_v.block(rows, columns).astype(np.int32) & (SIDE - 1)
    return (u << 10) | v


def paint_stroma(canvas: Canvas, layout: Layout) -> None:
    """Fill the canvas with collagen where tissue or its ragged edge may be."""
    collagen, cleft = (texture.ravel() for texture in fibres())
    for rows, columns in blocks(canvas.size):
        if layout.tissue.block(rows, columns)[::8, ::8].max() < -24:
            continue
        index = fibre_index(layout, rows, columns)
        loose = layout.loose.block(rows, columns)
        amount = collagen[index] * (0.98 - 0.16 * loose)
        amount *= 1 - cleft[index] * np.clip(0.62 + 0.30 * loose, 0.1, 0.97)
        window = slice(rows.start + MARGIN, rows.stop + MARGIN), slice(columns.start + MARGIN, columns.stop + MARGIN)
        canvas.eosin[window] = amount
        canvas.haematoxylin[window] = 0.04 + 0.13 * amount


def paint_fat(canvas: Canvas, layout: Layout, rng: np.random.Generator) -> None:
    """Paint fat cells: empty polygons with thin walls (the borders of a Voronoi diagram) and flat nuclei in them."""
    for rows, columns in ndimage.find_objects(ndimage.label(layout.classes == FAT)[0]):
        box = columns.start * STEP, rows.start * STEP, columns.stop * STEP, rows.stop * STEP
        spot = canvas.clipped(*box)
        if spot is None:
            continue
        window, x, y = spot
        points = scatter((x.size, y.size), 62, 0.28, rng)
        wall = _voronoi_walls(points, (y.size, x.size))
        fat = ndimage.gaussian_filter((layout.classes[rows, columns] == FAT).astype(np.float32), 0.7)
        inside = ndimage.zoom(fat, STEP, order=1, grid_mode=True, mode="nearest")[: y.size, : x.size]
        noise = smooth_noise((y.size, x.size), 6, rng)
        empty = np.clip((wall - 2.2 - 0.5 * noise) / 1.3, 0, 1) * np.clip((inside - 0.45) * 8 + 0.6 * noise, 0, 1)
        canvas.blend(window, 0.97 * empty, 0.01, 0.02)
        corners = np.argwhere((wall < 1.5) & (inside > 0.6))
        chosen = (
            corners[rng.integers(0, len(corners), min(len(points) // 2, len(corners)))] if len(corners) else corners
        )
        angles = layout.direction.at(chosen[:, 1] + box[0], chosen[:, 0] + box[1])
        press(canvas, "spindle", chosen[:, ::-1] + np.array(box[:2]), angles, rng)


def _voronoi_walls(points: NDArray[np.float64], shape: tuple[int, int]) -> Array:
    """Distance of every pixel to the nearest border between Voronoi cells, in pixels (half resolution inside)."""
    half = -(-shape[0] // 2), -(-shape[1] // 2)
    seeds = np.ones(half, bool)
    spots = np.clip((points / 2).astype(int), 0, (half[1] - 1, half[0] - 1))
    seeds[spots[:, 1], spots[:, 0]] = False
    nearest = ndimage.distance_transform_edt(seeds, return_distances=False, return_indices=True)
    owner = nearest[0] * half[1] + nearest[1]
    border = np.zeros(half, bool)
    border[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    border[1:] |= owner[1:] != owner[:-1]
    distance = ndimage.distance_transform_edt(~border).astype(np.float32) * 2
    return np.asarray(ndimage.zoom(distance, 2, order=1, grid_mode=True, mode="nearest")[: shape[0], : shape[1]])


def paint_stroma_cells(canvas: Canvas, layout: Layout, rng: np.random.Generator) -> None:
    """Press the cells of the connective tissue: spindle nuclei along the fibres, plumper ones near tumour, lymphocytes."""
    extent = float(canvas.size.width), float(canvas.size.height)
    points = scatter(extent, 30, 0.45, rng)
    points = points[(points >= 0).all(1) & (points < extent).all(1)]
    kind = layout.classes[(points[:, 1] / STEP).astype(int), (points[:, 0] / STEP).astype(int)]
    loose, tumour = layout.loose.at(points[:, 0], points[:, 1]), layout.tumour.at(points[:, 0], points[:, 1])
    chance = rng.random(len(points))
    stroma = kind == STROMA
    spindle = stroma & (chance < 0.48 - 0.08 * loose)
    inflamed = (
        stroma
        & ~spindle
        & (chance > 1 - np.clip(0.05 + 0.1 * (loose - 0.6) + 0.25 * np.exp(-np.abs(tumour) / 60), 0.02, 0.4))
    )
    angles = layout.direction.at(points[:, 0], points[:, 1]) + rng.normal(0, 0.22, len(points))
    plump = spindle & (rng.random(len(points)) < np.where(tumour > -80, 0.6, 0.15))
    for name, chosen in (("spindle", spindle & ~plump), ("fibroblast", plump), ("lymphocyte", inflamed)):
        press(canvas, name, points[chosen], angles[chosen], rng)


def paint_follicles(canvas: Canvas, layout: Layout, rng: np.random.Generator) -> None:
    """Press lymphoid follicles: lymphocytes shoulder to shoulder, thinning out at the rim."""
    for blob in layout.follicles:
        side = 2.6 * blob.reach
        points = scatter((side, side), 11.5, 0.33, rng) - side / 2
        theta = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
        edge = blob.radii[(theta / (2 * np.pi) * len(blob.radii)).astype(int) % len(blob.radii)]
        near = np.hypot(points[:, 0], points[:, 1]) / edge
        keep = rng.random(len(points)) < np.clip((1.12 - near) * 4.5, 0.02, 0.96) * (near < 1.3)
        spot = points[keep] + (blob.x, blob.y)
        press(canvas, "lymphocyte", spot, rng.uniform(0, np.pi, len(spot)).astype(np.float32), rng)


__all__ = ["BACKGROUND", "GLAND", "LYMPHOID", "TUMOUR", "paint_fat", "paint_follicles", "paint_stroma"]
