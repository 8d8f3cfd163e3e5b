"""Where everything lies on a synthetic slide, decided on a coarse grid before anything is painted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.demo.noise import Array, Field, blob_radii, polar, smooth_noise
from wsi_pipeline.geometry import Size

STEP = 8
"""Level-0 pixels per cell of the layout (4 micrometres)."""

TISSUE_CLASSES = ("background", "stroma", "gland", "lymphoid", "fat", "tumour")
"""What a cell of the class map can be; its value is the index here."""

BACKGROUND, STROMA, GLAND, LYMPHOID, FAT, TUMOUR = range(6)


@dataclass(frozen=True, eq=False)
class Blob:
    """One roundish object: centre in slide pixels and the radius of its outline at 128 even angles."""

    x: float
    y: float
    radii: Array

    @property
    def reach(self) -> float:
        """Largest radius in pixels."""
        return float(self.radii.max())


@dataclass(frozen=True)
class Recipe:
    """What kind of slide to lay out.

    size            pixels
    pieces          how many pieces of tissue; 0 fills the whole picture
    elongation      length to width of a piece: 1 for chunks, 4 for needle cores
    tumour          how many tumour regions
    tumour_radius   their mean radius in pixels
    gland_density   0 (none) to 1 (crowded) outside tumour
    follicles       how many lymphoid follicles
    fat             part of the tissue that is fat, 0 to 0.5
    """

    size: Size
    pieces: int = 2
    elongation: float = 1.4
    tumour: int = 0
    tumour_radius: float = 380.0
    gland_density: float = 0.6
    follicles: int = 2
    fat: float = 0.1


@dataclass(frozen=True, eq=False)
class Layout:
    """The plan of one slide; fields are Field of pixels, grids are arrays at STEP pixels per cell.

    tissue      signed distance to the tissue edge in pixels, positive inside
    tumour      signed distance to the outline of the tumour regions, positive inside
    fibre_u, fibre_v   coordinates across and along the collagen fibres, pixels
    direction   direction of the fibres in radians
    loose       how loose the stroma is, about -2 to 2
    classes     uint8 grid of TISSUE_CLASSES
    """

    size: Size
    tissue: Field
    tumour: Field
    fibre_u: Field
    fibre_v: Field
    direction: Field
    loose: Field
    classes: NDArray[np.uint8]
    glands: tuple[Blob, ...]
    vessels: tuple[Blob, ...]
    follicles: tuple[Blob, ...]


def plan_layout(recipe: Recipe, rng: np.random.Generator) -> Layout:
    """Lay out one slide: tissue pieces, tumour regions, fat, follicles, vessels, glands, fibres around them."""
    shape = -(-recipe.size.height // STEP), -(-recipe.size.width // STEP)
    tissue = _tissue(recipe, shape, rng)
    tumour = _tumour_regions(recipe, tissue, rng)
    free = (tissue > 30) & (tumour < -40)
    fat = free & (_patchy(shape, 28, rng) < recipe.fat) if recipe.fat else np.zeros(shape, bool)
    fat = ndimage.binary_opening(fat, iterations=4)
    taken = ~free | ndimage.binary_dilation(fat, iterations=3)
    follicles = _place(recipe.follicles, (60, 130), taken, 0.06, rng)
    vessels = _place(int(np.count_nonzero(free) * STEP**2 / 350_000) + 1, (16, 42), taken, 0.1, rng)
    zone = taken | (_patchy(shape, 40, rng) > recipe.gland_density)
    glands = _place(4000, (34, 66), zone, 0.09, rng, gap=14) if recipe.gland_density else ()
    classes = _classes(tissue, tumour, fat, follicles, glands)
    return _with_fibres(recipe.size, shape, tissue, tumour, classes, glands, vessels, follicles, rng)


def empty_layout(size: Size) -> Layout:
    """The plan of a slide without tissue."""
    shape = -(-size.height // STEP), -(-size.width // STEP)
    nothing, far = Field(np.zeros(shape, np.float32), STEP), Field(np.full(shape, -1e4, np.float32), STEP)
    classes = np.full(shape, BACKGROUND, np.uint8)
    return Layout(size, far, far, nothing, nothing, nothing, nothing, classes, (), (), ())


def _patchy(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> Array:
    """Smooth noise turned into ranks, 0 to 1: a threshold t selects about the part t of the area."""
    noise = smooth_noise(shape, sigma, rng) + 0.35 * smooth_noise(shape, sigma / 3, rng)
    ranks = np.empty(noise.size, np.float32)
    ranks[np.argsort(noise, axis=None)] = np.linspace(0, 1, noise.size, dtype=np.float32)
    return ranks.reshape(shape)


def _grid(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Pixel position x and y of every cell's centre."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return (x + 0.5) * STEP, (y + 0.5) * STEP


def _tissue(recipe: Recipe, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Signed distance to the edge of ragged pieces laid side by side across the slide."""
    if recipe.pieces == 0:
        return np.full(shape, 1000.0, np.float32)
    x, y = _grid(shape)
    distance = np.full(shape, -1e4, np.float32)
    across = recipe.size.width >= recipe.size.height
    length = max(recipe.size.width, recipe.size.height) / recipe.pieces
    other = min(recipe.size.width, recipe.size.height)
    for index in range(recipe.pieces):
        reach = (
            0.44
            * min(length, other)
            * rng.uniform(0.85, 1.05)
            * np.sqrt(max(length, other) / min(length, other)) ** 0.8
        )
        main, side = (index + 0.5 + rng.uniform(-0.06, 0.06)) * length, other * rng.uniform(0.46, 0.54)
        radii = blob_radii(reach, min(recipe.elongation, max(length, other) / min(length, other) * 1.3), 0.22, rng)
        centre = (main, side) if across else (side, main)
        depth, _ = polar(radii, x - centre[0], y - centre[1])
        distance = np.maximum(distance, depth)
    border = np.minimum(np.minimum(x, recipe.size.width - x), np.minimum(y, recipe.size.height - y)) - 60
    distance = np.minimum(distance + 34 * smooth_noise(shape, 14, rng) + 14 * smooth_noise(shape, 4, rng), border)
    cracks = np.abs(smooth_noise(shape, (9, 26), rng)) * 160 - 10 + np.clip(distance, 0, 260) * 0.35
    distance = np.minimum(distance, cracks)
    inside = ndimage.distance_transform_edt(distance > 0) * STEP
    outside = ndimage.distance_transform_edt(distance <= 0) * STEP
    return np.asarray(ndimage.gaussian_filter(inside - outside, 1.0), np.float32)


def _tumour_regions(recipe: Recipe, tissue: Array, rng: np.random.Generator) -> Array:
    """Signed distance to wobbly regions inside the tissue; -10000 everywhere where there are none."""
    x, y = _grid(tissue.shape)
    distance = np.full(tissue.shape, -1e4, np.float32)
    for _ in range(recipe.tumour):
        room = np.minimum(tissue, 400) - np.where(distance > -300, 1e4, 0)
        candidates = np.flatnonzero(room >= min(room.max(), 0.7 * recipe.tumour_radius))
        i, j = np.unravel_index(rng.choice(candidates), tissue.shape)
        radii = blob_radii(recipe.tumour_radius * rng.uniform(0.8, 1.2), rng.uniform(1, 1.7), 0.16, rng)
        depth, _ = polar(radii, x - x[i, j], y - y[i, j])
        distance = np.maximum(distance, depth)
    return np.minimum(distance, tissue)


def _place(
    tries: int,
    radius: tuple[float, float],
    taken: NDArray[np.bool_],
    roughness: float,
    rng: np.random.Generator,
    gap: float = 20.0,
) -> tuple[Blob, ...]:
    """Throw blobs at free ground, largest distance to taken ground permitting, and mark what they cover as taken."""
    blobs: list[Blob] = []
    room = ndimage.distance_transform_edt(~taken) * STEP
    fits = np.flatnonzero(room > radius[0] + gap)
    centres = np.empty((0, 3))
    for cell in rng.permutation(fits)[:tries]:
        i, j = divmod(int(cell), taken.shape[1])
        x, y = (j + rng.random()) * STEP, (i + rng.random()) * STEP
        clear = float(room[i, j])
        if len(centres):
            clear = min(clear, float((np.hypot(centres[:, 0] - x, centres[:, 1] - y) - centres[:, 2]).min()))
        size = min(rng.uniform(*radius), clear - gap)
        if size < radius[0]:
            continue
        blobs.append(Blob(x, y, blob_radii(size * 0.94, rng.uniform(1, 1.25), roughness, rng)))
        centres = np.vstack([centres, (x, y, size)])
    _mark(taken, blobs, gap / 2)
    return tuple(blobs)


def _mark(grid: NDArray[np.generic], blobs: list[Blob] | tuple[Blob, ...], grow: float, value: int = 1) -> None:
    """Write `value` on the cells that blobs cover, grown by `grow` pixels."""
    for blob in blobs:
        half = int((blob.reach + grow) / STEP) + 1
        i, j = int(blob.y / STEP), int(blob.x / STEP)
        rows = slice(max(i - half, 0), min(i + half + 1, grid.shape[0]))
        columns = slice(max(j - half, 0), min(j + half + 1, grid.shape[1]))
        x = (np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + 0.5) * STEP - blob.x
        y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5) * STEP - blob.y
        depth, _ = polar(blob.radii, x + 0 * y, y + 0 * x)
        grid[rows, columns][depth > -grow] = value


def _classes(
    tissue: Array, tumour: Array, fat: NDArray[np.bool_], follicles: tuple[Blob, ...], glands: tuple[Blob, ...]
) -> NDArray[np.uint8]:
    """The class map: later classes win over earlier ones."""
    classes = np.where(tissue > 0, STROMA, BACKGROUND).astype(np.uint8)
    classes[fat] = FAT
    _mark(classes, follicles, 0, LYMPHOID)
    _mark(classes, glands, 0, GLAND)
    classes[tumour > 0] = TUMOUR
    classes[tissue <= 0] = BACKGROUND
    return classes


def _with_fibres(
    size: Size,
    shape: tuple[int, int],
    tissue: Array,
    tumour: Array,
    classes: NDArray[np.uint8],
    glands: tuple[Blob, ...],
    vessels: tuple[Blob, ...],
    follicles: tuple[Blob, ...],
    rng: np.random.Generator,
) -> Layout:
    """Add the fibre coordinates: a gently swirling grain that bends around glands and vessels."""
    x, y = _grid(shape)
    turn = rng.uniform(0, np.pi)
    u = x * np.cos(turn) + y * np.sin(turn) + 150 * smooth_noise(shape, 30, rng) + 22 * smooth_noise(shape, 8, rng)
    v = -x * np.sin(turn) + y * np.cos(turn) + 120 * smooth_noise(shape, 30, rng)
    ring = np.zeros(shape, bool)
    _mark(ring, glands, 0)
    _mark(ring, vessels, 6)
    away = ndimage.gaussian_filter(ndimage.distance_transform_edt(~ring).astype(np.float32) * STEP, 0.8)
    u = np.asarray(u + 70 * np.exp(-away / 26), np.float32)
    slope_y, slope_x = np.gradient(u)
    direction = np.arctan2(slope_y, slope_x) + np.pi / 2
    fields = [Field(np.asarray(part, np.float32), STEP) for part in (tissue, tumour, u, v, direction)]
    loose = Field(smooth_noise(shape, 16, rng), STEP)
    return Layout(size, *fields, loose, classes, glands, vessels, follicles)


__all__ = ["TISSUE_CLASSES", "Blob", "Layout", "Recipe", "plan_layout", "replace"]
