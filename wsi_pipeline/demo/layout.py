"""The layout of a synthetic slide, decided on a coarse grid before anything is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.demo.noise import Array, Field, blob_radii, polar, smooth_noise
from wsi_pipeline.errors import UsageError
from wsi_pipeline.geometry import Size

STEP = 8
"""Level-0 pixels per cell of the layout (4 micrometres)."""

SMALLEST_REGION = 400
"""Cells a tumour region must have (6400 square micrometres); smaller splinters are left normal."""

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
    pieces          number of pieces of tissue; 0 fills the whole picture
    elongation      length to width of a piece: 1 for chunks, 4 for needle cores
    tumour          number of tumour regions
    tumour_radius   their mean radius in pixels
    gland_density   0 (none) to 1 (crowded) outside tumour
    gland_radius    their typical radius in pixels
    inflammation    fraction of the tissue that lymphocytes have spread into, 0 to 0.6
    follicles       number of lymphoid follicles
    fat             fraction of the tissue that is fat, 0 to 0.5
    """

    size: Size
    pieces: int = 2
    elongation: float = 1.4
    tumour: int = 0
    tumour_radius: float = 380.0
    gland_density: float = 0.6
    gland_radius: float = 44.0
    inflammation: float = 0.15
    follicles: int = 2
    fat: float = 0.1

    def __post_init__(self) -> None:
        if self.pieces < 0 or self.tumour < 0 or self.follicles < 0:
            raise UsageError(f"pieces, tumour and follicles must be >= 0, got {self}")
        if not (0 <= self.gland_density <= 1 and 0 <= self.inflammation <= 1 and 0 <= self.fat <= 0.5):
            raise UsageError(f"gland_density and inflammation must be 0 to 1, fat 0 to 0.5, got {self}")


@dataclass(frozen=True, eq=False)
class Fibres:
    """A set of collagen fibres: coordinates across (u) and along (v) them in pixels, and their direction in radians."""

    u: Field
    v: Field
    direction: Field


@dataclass(frozen=True, eq=False)
class Layout:
    """The plan of one slide; fields are Field of pixels, grids are arrays at STEP pixels per cell.

    tissue      signed distance to the tissue edge in pixels, positive inside
    tumour      signed distance to the outline of the tumour regions, positive inside
    fibres      two sets of collagen bundles that interlace
    weave       the first set lies on top where this is positive
    loose       how loose the stroma is, about -2 to 2
    inflamed    how densely lymphocytes lie between the fibres, 0 to 1
    away        distance to the nearest gland or vessel, pixels
    classes     uint8 grid of TISSUE_CLASSES
    """

    size: Size
    tissue: Field
    tumour: Field
    fibres: tuple[Fibres, Fibres]
    weave: Field
    loose: Field
    inflamed: Field
    away: Field
    classes: NDArray[np.uint8]
    glands: tuple[Blob, ...]
    vessels: tuple[Blob, ...]
    follicles: tuple[Blob, ...]

    def direction_at(self, x: Array, y: Array) -> Array:
        """Direction in radians of the fibres on top at pixel positions."""
        first, second = (fibres.direction.at(x, y) for fibres in self.fibres)
        return np.where(self.weave.at(x, y) > 0, first, second)


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
    glands = _place(4000, (34, recipe.gland_radius * 1.5), zone, 0.11, rng, gap=12) if recipe.gland_density else ()
    classes = _classes(tissue, tumour, fat, follicles, glands)
    inflamed = np.clip((recipe.inflammation - _patchy(shape, 18, rng)) * 4 + 0.3, 0, 1)
    classes[(inflamed > 0.9) & (classes == STROMA)] = LYMPHOID
    away = _distance_to((*glands, *vessels), shape)
    turn = rng.uniform(0, np.pi)
    return Layout(
        size=recipe.size,
        tissue=_field(tissue),
        tumour=_field(tumour),
        fibres=(_fibres(turn, away, rng), _fibres(turn + rng.uniform(0.5, 1.5), away, rng)),
        weave=_field(smooth_noise(shape, 9, rng) + 0.25),
        loose=_field(smooth_noise(shape, 16, rng)),
        inflamed=_field(inflamed),
        away=_field(away),
        classes=classes,
        glands=glands,
        vessels=vessels,
        follicles=follicles,
    )


def _field(values: Array) -> Field:
    """A coarse grid as a field of pixels."""
    return Field(values.astype(np.float32), STEP)


def empty_layout(size: Size) -> Layout:
    """The plan of a slide without tissue."""
    shape = -(-size.height // STEP), -(-size.width // STEP)
    nothing, far = Field(np.zeros(shape, np.float32), STEP), Field(np.full(shape, -1e4, np.float32), STEP)
    classes = np.full(shape, BACKGROUND, np.uint8)
    fibres = Fibres(nothing, nothing, nothing)
    return Layout(size, far, far, (fibres, fibres), nothing, nothing, nothing, nothing, classes, (), (), ())


def _patchy(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> Array:
    """Smooth noise turned into ranks, 0 to 1: a threshold t selects about the fraction t of the area."""
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
    width, height = recipe.size.width, recipe.size.height
    cell = (width / recipe.pieces, height) if width >= height else (width, height / recipe.pieces)
    for index in range(recipe.pieces):
        along = (np.pi / 2 if cell[1] > cell[0] else 0.0) + rng.normal(0, 0.22)
        aspect = max(recipe.elongation, 0.8 * max(cell) / min(cell))
        radii = _fitting(blob_radii(1.0, aspect, 0.24, rng, turn=along), cell, rng.uniform(0.86, 0.98))
        moved = rng.uniform(0.48, 0.52, 2) * cell
        corner = (index * cell[0], 0) if width >= height else (0, index * cell[1])
        depth, _ = polar(radii, x - corner[0] - moved[0], y - corner[1] - moved[1])
        distance = np.maximum(distance, depth)
    border = np.minimum(np.minimum(x, recipe.size.width - x), np.minimum(y, recipe.size.height - y)) - 60
    ragged = 30 * smooth_noise(shape, 12, rng) + 16 * smooth_noise(shape, 3.5, rng) + 5 * smooth_noise(shape, 1.5, rng)
    tears = np.abs(smooth_noise(shape, (22, 7), rng) + 0.25 * smooth_noise(shape, 3, rng)) * 150 - 16
    tears += 60 * np.clip(smooth_noise(shape, 30, rng) + 0.3, 0, 1) + 0.10 * np.clip(distance, 0, 600)
    distance = np.minimum(np.minimum(distance + ragged, tears), border)
    inside = ndimage.distance_transform_edt(distance > 0) * STEP
    outside = ndimage.distance_transform_edt(distance <= 0) * STEP
    return np.asarray(ndimage.gaussian_filter(inside - outside, 1.0), np.float32)


def _fitting(radii: Array, cell: tuple[float, float], part: float) -> Array:
    """A blob's radii, scaled so that it fills the fraction `part` of the (width, height) cell it is centred in."""
    theta = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    across, down = np.abs(radii * np.cos(theta)).max() / cell[0], np.abs(radii * np.sin(theta)).max() / cell[1]
    reach = max(float(across), float(down))
    return radii * (0.5 * part / reach)


def _tumour_regions(recipe: Recipe, tissue: Array, rng: np.random.Generator) -> Array:
    """Signed distance to wobbly regions inside the tissue; -10000 everywhere if there are none."""
    x, y = _grid(tissue.shape)
    distance = np.full(tissue.shape, -1e4, np.float32)
    for _ in range(recipe.tumour):
        room = np.minimum(tissue, 400) - np.where(distance > -300, 1e4, 0)
        candidates = np.flatnonzero(room >= min(room.max(), 0.7 * recipe.tumour_radius))
        i, j = np.unravel_index(rng.choice(candidates), tissue.shape)
        radii = blob_radii(recipe.tumour_radius * rng.uniform(0.8, 1.2), rng.uniform(1, 1.7), 0.16, rng)
        depth, _ = polar(radii, x - x[i, j], y - y[i, j])
        distance = np.maximum(distance, depth)
    distance = np.minimum(distance, tissue)
    pieces, count = ndimage.label(distance > 0)
    sizes = ndimage.sum_labels(distance > 0, pieces, np.arange(count + 1))
    splinter = sizes < min(SMALLEST_REGION, sizes.max())
    return np.where(splinter[pieces], np.minimum(distance, -1.0), distance)


def _place(
    tries: int,
    radius: tuple[float, float],
    taken: NDArray[np.bool_],
    roughness: float,
    rng: np.random.Generator,
    gap: float = 20.0,
) -> tuple[Blob, ...]:
    """Place blobs at random on free ground, far enough from taken ground, and mark the area they cover as taken."""
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
        blobs.append(Blob(x, y, blob_radii(size * 0.92, rng.uniform(1, 1.45), roughness, rng)))
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


def _distance_to(blobs: tuple[Blob, ...], shape: tuple[int, int]) -> Array:
    """Smoothed distance in pixels from every cell to the nearest blob."""
    covered = np.zeros(shape, bool)
    _mark(covered, blobs, 2)
    distance = ndimage.distance_transform_edt(~covered) if covered.any() else np.full(shape, 1e3)
    return np.asarray(ndimage.gaussian_filter(distance.astype(np.float32) * STEP, 0.8))


def _classes(
    tissue: Array, tumour: Array, fat: NDArray[np.bool_], follicles: tuple[Blob, ...], glands: tuple[Blob, ...]
) -> NDArray[np.uint8]:
    """The class map: later classes overwrite earlier ones."""
    classes = np.where(tissue > 0, STROMA, BACKGROUND).astype(np.uint8)
    classes[fat] = FAT
    _mark(classes, follicles, 0, LYMPHOID)
    _mark(classes, glands, 0, GLAND)
    classes[tumour > 0] = TUMOUR
    classes[tissue <= 0] = BACKGROUND
    return classes


def _fibres(turn: float, away: Array, rng: np.random.Generator) -> Fibres:
    """Fibres that run at right angles to `turn`, swirl gently, and bend around objects `away` pixels from them."""
    x, y = _grid(away.shape)
    u = x * np.cos(turn) + y * np.sin(turn) + 85 * smooth_noise(away.shape, 30, rng)
    u = u + 8 * smooth_noise(away.shape, 8, rng) + 55 * np.exp(-away / 24)
    v = -x * np.sin(turn) + y * np.cos(turn) + 60 * smooth_noise(away.shape, 30, rng)
    slope_y, slope_x = np.gradient(u)
    return Fibres(_field(u), _field(v), _field(np.arctan2(slope_y, slope_x) + np.pi / 2))
