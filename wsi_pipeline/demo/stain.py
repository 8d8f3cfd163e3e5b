"""From stain amounts to a picture: optical density with a site's own dyes, light, lens and sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from wsi_pipeline.demo.canvas import MARGIN, Canvas, blocks
from wsi_pipeline.demo.layout import Layout
from wsi_pipeline.demo.noise import Array, Field, smooth_noise
from wsi_pipeline.demo.stroma import collagen_at

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Site:
    """A laboratory: its stain (optical density of red, green, blue per unit), scanner and habits.

    haematoxylin, eosin   optical density added by amount 1 (base e)
    white                 colour of empty glass, 0 to 255
    sharpness             0 (soft lens) to 1 (sharp)
    noise                 deviation of the sensor noise in grey levels
    mpp                   micrometres per pixel its scanner states
    tile                  side of its files' JPEG tiles, pixels
    """

    name: str
    haematoxylin: Vector
    eosin: Vector
    white: Vector
    sharpness: float
    noise: float
    mpp: float
    tile: int


SITES = (
    Site("north", (1.22, 1.34, 0.66), (0.16, 0.98, 0.52), (243, 243, 244), 0.7, 3.0, 0.5000, 240),
    Site("harbour", (1.30, 1.36, 0.60), (0.26, 0.86, 0.28), (245, 240, 246), 0.35, 2.2, 0.4990, 256),
    Site("hill", (0.92, 1.10, 0.66), (0.10, 0.78, 0.62), (246, 244, 238), 0.55, 3.6, 0.5022, 256),
)
"""Three sites that differ in hue, strength and sharpness as real ones do."""


@dataclass(frozen=True)
class Staining:
    """How strongly one slide was stained at its site: factors on both dyes (thickness, time in the bath)."""

    haematoxylin: float = 1.0
    eosin: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Staining:
        """A random slide-to-slide deviation, about 20 % each."""
        return cls(float(np.exp(rng.normal(0, 0.20))), float(np.exp(rng.normal(0, 0.20))))


def develop(
    canvas: Canvas, layout: Layout, site: Site, staining: Staining, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Turn stain amounts into an RGB picture, uint8 (height, width, 3).

    Beer-Lambert law per colour channel, I = white * exp(-(h * H + e * E)) (Ruifrok and Johnston 2001), then uneven
    light, sensor noise and a small blur.
    """
    dyes = np.array([site.haematoxylin, site.eosin], np.float32) * [[staining.haematoxylin], [staining.eosin]]
    dyes = dyes.astype(np.float32)
    grid = -(-canvas.size.height // 64), -(-canvas.size.width // 64)
    light = Field(1 - 0.012 * smooth_noise(grid, max(grid) / 4, rng), 64)
    thickness = Field(1 + 0.06 * smooth_noise(grid, 6, rng), 64)
    noise = rng.normal(0, site.noise, (560, 560, 3)).astype(np.float32)
    picture = np.empty((canvas.size.height, canvas.size.width, 3), np.uint8)
    for rows, columns in blocks(canvas.size):
        shade = light.block(rows, columns)
        left, top = rng.integers(0, 48, 2)
        grain = noise[top : top + shade.shape[0], left : left + shade.shape[1]]
        stains = _stains(canvas, layout, thickness, rows, columns)
        for channel in range(3):
            bright = np.float32(site.white[channel]) * shade
            if stains is not None:
                bright *= np.exp(-(stains[0] * dyes[0, channel] + stains[1] * dyes[1, channel]))
            picture[rows, columns, channel] = np.clip(bright + grain[..., channel] + 0.5, 0, 255)
    return _soften(picture, site.sharpness)


def _stains(
    canvas: Canvas, layout: Layout, thickness: Field, rows: slice, columns: slice
) -> tuple[Array, Array] | None:
    """Stain amounts of a block, cut to the ragged tissue edge; None if there is no tissue."""
    tissue = layout.tissue.block(rows, columns)
    if tissue[::8, ::8].max() < -20:
        return None
    window = slice(rows.start + MARGIN, rows.stop + MARGIN), slice(columns.start + MARGIN, columns.stop + MARGIN)
    amount = thickness.block(rows, columns)
    if tissue.min() < 40:
        rough = collagen_at(layout, rows, columns)[0] - 0.5
        alpha = np.clip((tissue + 16 * rough) / 2.6 + 0.5, 0, 1)
        alpha *= 1 + 0.22 * np.exp(-np.abs(tissue - 8) / 7)
        amount = amount * alpha
    return canvas.haematoxylin[window] * amount, canvas.eosin[window] * amount


def _soften(picture: NDArray[np.uint8], sharpness: float) -> NDArray[np.uint8]:
    """A 3 x 3 blur that keeps `sharpness` of the centre."""
    side = (1 - sharpness) * 0.12
    corner = side / 2
    weights = [corner, side, corner, side, 1 - 4 * (side + corner), side, corner, side, corner]
    return np.array(Image.fromarray(picture).filter(ImageFilter.Kernel((3, 3), weights, scale=1)))
