"""What vit-mini is taught on: squares of tissue from slides that may be used for it, in one array on disk.

Real tissue comes from the slides of WSI_PIPELINE_DATA listed in SOURCES, synthetic tissue from wsi_pipeline.demo with
seeds of its own. The breast patches and the nuclei of the data folder are benchmarks: nothing here reads them.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from wsi_pipeline.config.specs import SegmentSpec  # noqa: E402
from wsi_pipeline.demo.plan import SlidePlan, plan_cohort  # noqa: E402
from wsi_pipeline.demo.tissue import Painting, paint_tissue  # noqa: E402
from wsi_pipeline.slides.open import open_slide  # noqa: E402
from wsi_pipeline.slides.thumbnail import read_whole  # noqa: E402
from wsi_pipeline.tiling.grid import lay_grid  # noqa: E402
from wsi_pipeline.tissue.segmentation import segment_tissue  # noqa: E402

Pixels = NDArray[np.uint8]
SIDE = 448
COVERAGE = 0.5
HELD_OUT, TRAINING = "held out", "training"
SOURCES = {
    "metaplasia-HE.svs": TRAINING,
    "metaplasia-trypsin-IHC.svs": TRAINING,
    "lung-SCC-HE3.svs": TRAINING,
    "CMU-1-Small-Region.svs": TRAINING,
    "TCGA-CR-7395-01A-01-TS1.svs": HELD_OUT,
}
"""Slides and what they serve for; the slide that is held out is of an organ and a laboratory the others are not of."""
TCGA_MPP = 0.25
"""Its file states no resolution; at 40x, TCGA's scanners have about this."""
SYNTHETIC_SEED = 1001
"""`make demo` uses seed 0; the adapter's slides have seeds of their own too."""
SYNTHETIC_SIDES = (2600, 3600)


@dataclass(frozen=True)
class Row:
    """One square: the slide it is of, its level-0 corner, micrometres per pixel, and what it serves for."""

    slide: str
    x: int
    y: int
    mpp: float
    use: str
    synthetic: bool


@dataclass(frozen=True, eq=False)
class Corpus:
    """Squares of tissue: pixels uint8 (N, SIDE, SIDE, 3) on disk, and a Row for each."""

    pixels: Pixels
    rows: tuple[Row, ...]

    def where(self, use: str, *, synthetic: bool | None = None) -> NDArray[np.int64]:
        """Numbers of the rows of one use, real or synthetic or both."""
        chosen = [n for n, row in enumerate(self.rows) if row.use == use and synthetic in (None, row.synthetic)]
        return np.array(chosen, np.int64)


def data_folder() -> Path:
    """Where the real data lie."""
    return Path(os.environ.get("WSI_PIPELINE_DATA", ROOT.parent / "shared" / "data"))


def open_corpus(folder: Path, synthetic_slides: int = 16) -> Corpus:
    """The corpus in `folder`; made there first where it is missing (a few minutes, about 1.1 GB)."""
    table, array = folder / "corpus.csv", folder / "corpus.npy"
    if not table.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _make(array, table, synthetic_slides)
    with table.open(newline="") as file:
        rows = tuple(
            Row(r["slide"], int(r["x"]), int(r["y"]), float(r["mpp"]), r["use"], r["synthetic"] == "True")
            for r in csv.DictReader(file)
        )
    return Corpus(np.load(array, mmap_mode="r"), rows)


def _make(array: Path, table: Path, synthetic_slides: int) -> None:
    raw, rows = array.with_suffix(".raw"), []
    with raw.open("wb") as file:
        for row, square in (*_all_real(), *_all_synthetic(synthetic_slides)):
            file.write(square.tobytes())
            rows.append(row)
    squares = np.memmap(raw, np.uint8, "r", shape=(len(rows), SIDE, SIDE, 3))
    np.save(array, squares)
    raw.unlink()
    with table.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(vars(row) for row in rows)


def _all_real() -> Iterator[tuple[Row, Pixels]]:
    for name, use in SOURCES.items():
        yield from _real(data_folder() / "slides" / name, use)


def _real(path: Path, use: str) -> Iterator[tuple[Row, Pixels]]:
    """Squares of the finest level, side by side, at least half of each tissue."""
    spec = SegmentSpec()
    with open_slide(path) as slide:
        size, mpp = slide.info.size, slide.info.mpp or TCGA_MPP
        mask = segment_tissue(read_whole(slide, mpp, spec.mask_mpp), size, mpp, spec).mask
        for x, y in lay_grid(mask, SIDE, SIDE, COVERAGE).coords.tolist():
            if x + SIDE <= size.width and y + SIDE <= size.height:
                yield Row(path.stem, x, y, mpp, use, False), slide.read_region(x, y, 0, SIDE, SIDE)


def _all_synthetic(slides: int) -> Iterator[tuple[Row, Pixels]]:
    """Squares of painted slides, the last two of which are held out."""
    for number, plan in enumerate(good_plans(slides, SYNTHETIC_SEED, SYNTHETIC_SIDES)):
        painting = paint(plan)
        use = HELD_OUT if number >= slides - 2 else TRAINING
        height, width = painting.pixels.shape[:2]
        for y in range(0, height - SIDE + 1, SIDE):
            for x in range(0, width - SIDE + 1, SIDE):
                if np.mean(painting.classes[y // 8 : (y + SIDE) // 8, x // 8 : (x + SIDE) // 8] > 0) >= COVERAGE:
                    square = as_jpeg(painting.pixels[y : y + SIDE, x : x + SIDE])
                    yield Row(f"synthetic-{plan.slide_id}", x, y, plan.site.mpp, use, True), square


def good_plans(slides: int, seed: int, sides: tuple[int, int]) -> list[SlidePlan]:
    """Plans of synthetic slides with tissue on them."""
    return [plan for plan in plan_cohort(slides, seed, sides) if plan.kind == "good"]


def paint(plan: SlidePlan) -> Painting:
    """A slide's picture and truth, in memory, from the same random numbers as the demo draws."""
    return paint_tissue(plan.recipe, plan.site, plan.staining, np.random.default_rng([*plan.seed, 1]))


def as_jpeg(square: Pixels, quality: int = 80) -> Pixels:
    """The pixels as a slide file would give them back."""
    file = io.BytesIO()
    Image.fromarray(square).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))
