"""Small synthetic slides and labelled patches as real files, made in seconds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFilter

MPP = 0.5
_TINTS = {"a": (150, 95, 175), "b": (215, 130, 160)}


def picture(seed: int, side: int, label: str) -> NDArray[np.uint8]:
    """A pale slide (side, side, 3) with one ragged piece of grainy tissue in the tint of its label."""
    rng = np.random.default_rng(seed)
    field = Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    yy, xx = np.mgrid[:side, :side] / side - 0.5
    inside = (np.hypot(xx, yy) + (np.asarray(field) / 255.0 - 0.5) * 0.2) < 0.36
    grain = rng.normal(0, 22, (side, side, 1)) + rng.normal(0, 6, (side, side, 3))
    image = np.where(inside[..., None], np.array(_TINTS[label]) + grain, 244 + grain * 0.05)
    dots = Image.fromarray((rng.random((side, side)) < 0.004).astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(7))
    image[(np.asarray(dots) > 0) & inside] = [80, 50, 130]
    return np.clip(image, 0, 255).astype(np.uint8)


def write_slide(path: Path, rgb: NDArray[np.uint8], mpp: float = MPP) -> None:
    """A tiled pyramidal TIFF with its resolution."""
    per_cm = (10_000 / mpp, 10_000 / mpp)
    with tifffile.TiffWriter(path) as file:
        common = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb", "resolutionunit": "CENTIMETER"}
        file.write(rgb, resolution=per_cm, metadata=None, **common)
        half = np.asarray(Image.fromarray(rgb).reduce(2))
        file.write(half, resolution=(per_cm[0] / 2,) * 2, subfiletype=1, metadata=None, **common)


def write_cohort(folder: Path, slides: int, side: int = 512, distinct: int | None = None) -> Path:
    """Slides of two classes, one patient each, and slides.csv, whose path is returned.

    distinct   how many pictures there are, an even number; further slides have the same pixels under another
               resolution, so that they are other files
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("slide_id", "path", "patient_id", "label")]
    for number in range(slides):
        label, seed = "ab"[number % 2], number % (distinct or slides)
        path = folder / f"s{number:04d}.tif"
        write_slide(
            path, picture(seed - seed % 2 + number % 2, side, label), MPP + 1e-6 * (number // (distinct or slides))
        )
        rows.append((path.stem, path.name, f"p{number:04d}", label))
    with (folder / "slides.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "slides.csv"


def write_patches(folder: Path, groups: int = 6, each: int = 3, side: int = 64) -> Path:
    """Labelled patches, <class>/<patient>/<n>.png; returns the folder."""
    for label in _TINTS:
        for group in range(groups):
            place = folder / label / f"patient {group}"
            place.mkdir(parents=True, exist_ok=True)
            for number in range(each):
                rgb = picture(1000 * group + number, 4 * side, label)
                middle = slice(2 * side - side // 2, 2 * side + side // 2)
                Image.fromarray(rgb[middle, middle]).save(place / f"{number}.png")
    return folder
