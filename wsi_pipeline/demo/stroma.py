"""Connective tissue: wavy collagen bundles with clefts between them, fat, and the cells that lie in both."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.demo.canvas import BLOCK, MARGIN, Canvas, blocks
from wsi_pipeline.demo.layout import FAT, LYMPHOID, STEP, STROMA, TUMOUR, Fibres, Layout
from wsi_pipeline.demo.noise import Array, scatter, smooth_noise, warp_rows
from wsi_pipeline.demo.nuclei import press

SIDE = 1024
"""Side of the seamless fibre textures, a power of two."""


@cache
def fibre_textures() -> tuple[Array, Array]:
    """Two seamless textures (across, along the fibres): collagen amount around 0.5, and cleft openness 0 to 1."""
    rng = np.random.default_rng(31415)
    shape = (SIDE, SIDE)
    bundles = smooth_noise(shape, (5, 30), rng)
    strands = smooth_noise(shape, (1.6, 15), rng)
    fibrils = smooth_noise(shape, (0.7, 5), rng)
    collagen = 0.54 + 0.12 * bundles + 0.10 * strands + 0.07 * fibrils
    ridge = np.abs(smooth_noise(shape, (5, 26), rng) + 0.35 * smooth_noise(shape, (2, 9), rng))
    gaps = smooth_noise(shape, (14, 30), rng)
    cleft = np.exp(-((ridge / 0.16) ** 2)) / (1 + np.exp(-(gaps - 0.3) * 5))
    wave = 5.5 * smooth_noise(shape, (40, 11), rng) + 2.0 * smooth_noise(shape, (20, 5), rng)
    return np.clip(warp_rows(collagen, wave), 0.05, 1.2), np.clip(warp_rows(cleft, wave), 0, 1)


def collagen_at(layout: Layout, rows: slice, columns: slice) -> tuple[Array, Array]:
    """Collagen amount and cleft openness of every pixel of a rectangle: the two sets of fibres, one over the other."""
    top = np.clip(layout.weave.block(rows, columns) * 4 + 0.5, 0, 1)
    first, second = (_fibre_index(fibres, rows, columns) for fibres in layout.fibres)
    collagen, cleft = (texture.ravel() for texture in fibre_textures())
    amount = collagen[second] + top * (collagen[first] - collagen[second])
    return amount, cleft[second] + top * (cleft[first] - cleft[second])


def _fibre_index(fibres: Fibres, rows: slice, columns: slice) -> NDArray[np.int32]:
    """Flat index into the fibre textures for every pixel of a rectangle."""
    u = fibres.u.block(rows, columns).astype(np.int32) & (SIDE - 1)
    v = fibres.v.block(rows, columns).astype(np.int32) & (SIDE - 1)
    return (u << 10) | v


@cache
def grain() -> Array:
    """A seamless texture as large as a block that follows no fibres, mean 0, deviation about 0.3."""
    rng = np.random.default_rng(16180)
    shape = (BLOCK, BLOCK)
    octaves = ((8.0, 0.20), (2.2, 0.18), (0.8, 0.12))
    parts = [weight * smooth_noise(shape, sigma, rng) for sigma, weight in octaves]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float32)


def paint_stroma(canvas: Canvas, layout: Layout) -> None:
    """Fill the canvas with collagen where tissue or its ragged edge may be."""
    for rows, columns in blocks(canvas.size):
        if layout.tissue.block(rows, columns)[::8, ::8].max() < -24:
            continue
        amount, cleft = collagen_at(layout, rows, columns)
        loose = layout.loose.block(rows, columns)
        amount *= (0.98 - 0.16 * loose) * (1 + 0.45 * grain()[: loose.shape[0], : loose.shape[1]])
        amount *= 1 - cleft * np.clip(0.62 + 0.30 * loose, 0.1, 0.97)
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
        empty = np.clip((wall - 1.3 - 0.5 * noise) / 1.1, 0, 1) * np.clip((inside - 0.45) * 8 + 0.6 * noise, 0, 1)
        canvas.blend(window, empty, 0.01, 0.02)
        _fat_nuclei(canvas, wall, inside, (box[0], box[1]), rng)


def _fat_nuclei(canvas: Canvas, wall: Array, inside: Array, corner: tuple[int, int], rng: np.random.Generator) -> None:
    """Press flat nuclei against the walls of fat cells; `wall` is the distance to them, `inside` where fat is."""
    places = np.argwhere((wall > 2) & (wall < 5) & (inside > 0.6))
    places = places[rng.permutation(len(places))[: wall.size // 5000]]
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(wall, 1.5))
    y, x = places.T
    angles = np.arctan2(slope_y[y, x], slope_x[y, x]) + np.pi / 2
    press(canvas, "endothelial", np.stack([x + corner[0], y + corner[1]], axis=-1), angles, rng)


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
    """Press the cells among the fibres: spindle nuclei along them, plumper ones near tumour, lymphocytes."""
    extent = float(canvas.size.width), float(canvas.size.height)
    points = scatter(extent, 27, 0.45, rng)
    points = points[(points >= 0).all(1) & (points < extent).all(1)]
    kind = layout.classes[(points[:, 1] / STEP).astype(int), (points[:, 0] / STEP).astype(int)]
    loose, tumour = layout.loose.at(points[:, 0], points[:, 1]), layout.tumour.at(points[:, 0], points[:, 1])
    chance = rng.random(len(points))
    stroma = np.isin(kind, (STROMA, LYMPHOID, TUMOUR))
    near = np.exp(-np.abs(layout.away.at(points[:, 0], points[:, 1]) - 12) / 40)
    spindle = stroma & (chance < 0.36 - 0.07 * loose + 0.15 * near)
    crowd = np.clip(0.04 + 0.08 * (loose - 0.6) + 0.30 * np.exp(-np.abs(tumour) / 60) + 0.35 * near**2, 0.02, 0.45)
    inflamed = stroma & ~spindle & (chance > 1 - crowd)
    angles = layout.direction_at(points[:, 0], points[:, 1]) + rng.normal(0, 0.22, len(points))
    plump = spindle & (rng.random(len(points)) < np.where(tumour > -80, 0.6, 0.15))
    for name, chosen in (("spindle", spindle & ~plump), ("fibroblast", plump), ("lymphocyte", inflamed)):
        press(canvas, name, points[chosen], angles[chosen], rng)


def paint_infiltrate(canvas: Canvas, layout: Layout, rng: np.random.Generator) -> None:
    """Press the lymphocytes of inflamed stroma; to be called before anything is painted on the stroma."""
    extent = float(canvas.size.width), float(canvas.size.height)
    points = scatter(extent, 14.5, 0.42, rng)
    points = points[(points >= 0).all(1) & (points < extent).all(1)]
    dense = layout.inflamed.at(points[:, 0], points[:, 1]) * (layout.tissue.at(points[:, 0], points[:, 1]) > 0)
    points = points[rng.random(len(points)) < 0.62 * dense]
    press(canvas, "lymphocyte", points, rng.uniform(0, np.pi, len(points)), rng)


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
