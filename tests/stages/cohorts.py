"""Small cohorts of real files for the stage tests: a few slides with tissue, one blank, one broken."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tests.slide_files import write_pyramid_tiff


def blob_slide(seed: int, *, side: int = 1024, red: bool = False) -> np.ndarray:
    """A pale slide with one ragged piece of grainy tissue; `red` tissue is redder."""
    rng = np.random.default_rng(seed)
    field = Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    yy, xx = np.mgrid[:side, :side] / side - 0.5
    inside = (np.hypot(xx, yy) + (np.asarray(field) / 255.0 - 0.5) * 0.15) < 0.36
    tissue = np.array([215, 130, 160] if red else [150, 95, 175], float)
    grain = rng.normal(0, 22, (side, side, 1)) + rng.normal(0, 6, (side, side, 3))
    image = np.where(inside[..., None], tissue + grain, 244 + grain * 0.05)
    nuclei = np.asarray(Image.fromarray((rng.random((side, side)) < 0.004).astype(np.uint8) * 255)
                        .filter(ImageFilter.MaxFilter(7))) > 0  # fmt: skip
    image[nuclei & inside] = [80, 50, 130]
    return np.clip(image, 0, 255).astype(np.uint8)


def write_cohort(folder: Path, *, per_class: int = 2, broken: bool = True) -> Path:
    """Write slides and slides.csv; returns the CSV. Classes `a` and `b`, one patient per slide."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for k in range(2 * per_class):
        path = folder / f"s{k}.svs"
        write_pyramid_tiff(path, blob_slide(k, red=k % 2 == 0), mpp=0.5)
        rows.append({"slide_id": f"s{k}", "path": path.name, "patient_id": f"p{k}", "label": "ab"[k % 2], "mpp": ""})
    if broken:
        write_pyramid_tiff(folder / "blank.svs", np.full((1024, 1024, 3), 243, np.uint8), mpp=0.5)
        (folder / "torn.svs").write_bytes((folder / "s0.svs").read_bytes()[:3000])
        rows.append({"slide_id": "blank", "path": "blank.svs", "patient_id": "p8", "label": "a", "mpp": ""})
        rows.append({"slide_id": "torn", "path": "torn.svs", "patient_id": "p9", "label": "b", "mpp": ""})
    with (folder / "slides.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "slides.csv"
