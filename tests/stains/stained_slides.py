"""Synthetic tissue of known stain: nuclei and matrix on glass, by the Beer-Lambert law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tests.slide_files import write_pyramid_tiff

HAEMATOXYLIN, EOSIN, DAB = (0.60, 0.72, 0.35), (0.16, 0.88, 0.45), (0.27, 0.57, 0.78)
GLASS = (244.0, 242.0, 243.0)


def unit(vector: tuple[float, ...]) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


def tissue_patch(
    seed: int = 0,
    *,
    side: int = 256,
    amounts: tuple[float, float] = (1.0, 1.0),
    vectors: tuple[tuple[float, ...], tuple[float, ...]] = (HAEMATOXYLIN, EOSIN),
    glass: tuple[float, ...] = GLASS,
    part: float = 1.0,
    noise: float = 1.5,
) -> np.ndarray:
    """uint8 (side, side, 3): tissue on the left `part` of it, glass on the rest."""
    rng = np.random.default_rng(seed)
    seeds = Image.fromarray((rng.random((side, side)) < 0.006).astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(9))
    nuclei = np.asarray(seeds.filter(ImageFilter.GaussianBlur(1))) / 255.0
    field = Image.fromarray(rng.integers(60, 256, (side // 8 + 1,) * 2, np.uint8)).resize((side, side))
    matrix = np.asarray(field) / 255.0 * (1 - 0.8 * nuclei)
    inside = (np.arange(side) < round(part * side))[None, :]
    stains = np.stack([(1.6 * nuclei + 0.05) * inside, 0.9 * matrix * inside], axis=-1) * np.array(amounts)
    density = stains @ np.stack([unit(vectors[0]), unit(vectors[1])])
    light = np.array(glass) * np.exp(-density) + rng.normal(0, noise, density.shape)
    return np.clip(light.round(), 0, 255).astype(np.uint8)


def write_stained(path: Path, seed: int, **how: object) -> None:
    """A slide of 1024 px at 0.5 mpp with one piece of tissue of 768 px on glass."""
    glass = how.get("glass", GLASS)
    picture = np.empty((1024, 1024, 3), np.uint8)
    picture[:] = np.round(glass)
    picture[128:896, 128:896] = tissue_patch(seed, side=768, **how)
    write_pyramid_tiff(path, picture, mpp=0.5)
