"""Quality measures on real pictures with artefacts drawn onto them, beside classical ones; and what they cost.

python benchmarks/quality.py                    all tables, as Markdown
python benchmarks/quality.py --part focus       one of focus, overview, alarms, cost
python benchmarks/quality.py --pictures DIR     what was found, drawn over slides with artefacts and over marked slides

Needs the real slides in the folder named by WSI_PIPELINE_DATA. Recall is at one false alarm in a hundred: the threshold
of every measure is the 99th percentile over all clean patches of all slides together.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import drawn_artefacts as drawn
import histoqc_style as classical
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import SegmentSpec, TileSpec
from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.quality.focus import edge_width
from wsi_pipeline.quality.measures import ARTEFACTS
from wsi_pipeline.quality.overview import Overview, measure_overview
from wsi_pipeline.quality.patch_quality import artefact_of
from wsi_pipeline.reading.patch_sources import SlidePatches
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.thumbnail import read_whole
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.segment import SegmentStage
from wsi_pipeline.stages.tile import TileStage
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.tiling.grid import PatchGrid, lay_grid
from wsi_pipeline.tiling.resolve import PatchGeometry, resolve_geometry
from wsi_pipeline.tissue.detectors.optics import background_colour, looks_like_glass
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.tissue.segmentation import segment_tissue

DATA = Path(os.environ.get("WSI_PIPELINE_DATA", "data"))
SLIDES = {
    "CMU-1-Small-Region.svs": "H&E skin",
    "metaplasia-HE.svs": "H&E stomach",
    "lung-SCC-HE3.svs": "H&E, pale and dark",
    "TCGA-CR-7395-01A-01-TS1.svs": "H&E, dark",
    "metaplasia-trypsin-IHC.svs": "IHC, pale",
}
SIGMAS_UM = (0.5, 0.75, 1.0, 1.5)
WIDTHS_UM = {"fold": (60, 100, 160, 250), "bubble": (20, 30, 45, 60), "glass edge": (20, 30, 45, 60),
             "pen": (300, 500, 800)}  # fmt: skip
COVERED = {"fold": 1 / 3, "bubble": 0.08, "glass edge": 0.08, "pen": 1 / 3}
"""Part of a patch from which on it counts as having the artefact."""
DRAW_MPP, LOOK_MPP = 4.0, 16.0
REPEATS = 3
PER_SLIDE = 40

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Opened:
    """A slide at DRAW_MPP with its tissue, glass colour and patches of 256 px at 0.5 mpp."""

    rgb: NDArray[np.uint8]
    mask: TissueMask
    grid: PatchGrid
    geometry: PatchGeometry

    @property
    def tissue(self) -> NDArray[np.bool_]:
        """The mask at the size of the picture."""
        height, width = self.rgb.shape[:2]
        rows = np.arange(height) * self.mask.pixels.shape[0] // height
        return self.mask.pixels[rows][:, np.arange(width) * self.mask.pixels.shape[1] // width]

    @property
    def glass(self) -> NDArray[np.float32]:
        """Colour of the empty glass."""
        return background_colour(self.rgb, looks_like_glass(self.rgb))


def opened(name: str) -> Opened:
    """Read and segment a slide; 0.5 mpp where the file states none."""
    with open_slide(DATA / "slides" / name) as slide:
        mpp = slide.info.mpp or 0.5
        mask = segment_tissue(read_whole(slide, mpp, 8.0), slide.info.size, mpp, SegmentSpec()).mask
        geometry = resolve_geometry(TileSpec(), slide.info, mpp)
        grid = lay_grid(mask, geometry.patch_level0, geometry.stride_level0, 0.25)
        return Opened(read_whole(slide, mpp, DRAW_MPP), mask, grid, geometry)


def clean_patches() -> dict[str, list[NDArray[np.uint8]]]:
    """Patches of 256 px at about 0.5 mpp: of every slide, and of two sets of images."""
    found: dict[str, list[NDArray[np.uint8]]] = {}
    for name, kind in SLIDES.items():
        with open_slide(DATA / "slides" / name) as slide:
            mpp = slide.info.mpp or 0.5
            mask = segment_tissue(read_whole(slide, mpp, 8.0), slide.info.size, mpp, SegmentSpec()).mask
            geometry = resolve_geometry(TileSpec(), slide.info, mpp)
            coords = lay_grid(mask, geometry.patch_level0, geometry.stride_level0, 0.5).coords
            rows = np.unique(np.linspace(0, len(coords) - 1, PER_SLIDE).round().astype(int))
            source = SlidePatches(slide, coords[rows], geometry)
            found[kind] = [source.read(row) for row in range(len(rows))]
    images = sorted((DATA / "patches/crc_nuclei/images").iterdir())[:PER_SLIDE]
    found["H&E colon, images"] = [np.asarray(Image.open(path).convert("RGB"))[:256, :256] for path in images]
    images = sorted(
        p for p in (DATA / "patches/ucsb_breast").rglob("*") if p.suffix in (".png", ".tif", ".webp", ".jpg")
    )
    halved = (Image.open(path).convert("RGB").reduce(2) for path in images[:PER_SLIDE])
    found["H&E breast, images"] = [np.asarray(image)[:256, :256] for image in halved]
    return found


def focus_table() -> None:
    """Recall of blurred patches, and whether each ranks below its sharp self."""
    methods = {
        "width of edges (ours)": lambda patch: 0.5 * float(np.nan_to_num(edge_width(patch))),
        "variance of Laplacian": classical.laplacian_blur,
        "smoothed Laplacian (HistoQC-style)": classical.smoothed_laplacian_blur,
    }
    patches, rng = clean_patches(), np.random.default_rng(0)
    strengths = " | ".join(f"{sigma:g} um" for sigma in SIGMAS_UM)
    alarms_of = "false alarms | limit of other stains | sharp, paler"
    print(f"\n| measure | stain | {alarms_of} | {strengths} | below its sharp self |")
    print("|---|---|---|---|---|" + "---|" * (len(SIGMAS_UM) + 1))
    paled = {kind: [drawn.compressed(drawn.paler(p, 0.4), 85) for p in some] for kind, some in patches.items()}
    blurred = {kind: [[drawn.compressed(p, 85), *(drawn.defocused(p, 2 * s, 85, rng) for s in SIGMAS_UM)] for p in some]
               for kind, some in patches.items()}  # fmt: skip
    for name, method in methods.items():
        values = {kind: np.array([[method(p) for p in row] for row in rows]) for kind, rows in blurred.items()}
        limit = np.percentile(np.concatenate([v[:, 0] for v in values.values()]), 99)
        faded = {kind: np.array([method(p) for p in some]) for kind, some in paled.items()}
        for kind, v in values.items():
            recall = " | ".join(f"{np.mean(v[:, k] > limit):.2f}" for k in range(1, v.shape[1]))
            below = np.mean(v[:, 1] > v[:, 0])
            others = np.percentile(np.concatenate([w[:, 0] for other, w in values.items() if other != kind]), 99)
            alarms = [np.mean(x > y) for x, y in ((v[:, 0], limit), (v[:, 0], others), (faded[kind], limit))]
            print(f"| {name} | {kind} | {' | '.join(f'{a:.2f}' for a in alarms)} | {recall} | {below:.2f} |")
        print(f"| {name} | all; threshold {limit:.3g} | 0.01 | | | "
              + " | ".join(f"{np.mean(np.concatenate([v[:, k] for v in values.values()]) > limit):.2f}"
                           for k in range(1, 1 + len(SIGMAS_UM))) + " | |")  # fmt: skip


def draw(slide: Opened, kind: str, width_um: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The slide's picture with one artefact, and where it is."""
    rng, width = np.random.default_rng(seed), width_um / DRAW_MPP
    args = slide.rgb, slide.glass, slide.tissue
    if kind == "fold":
        return drawn.fold(*args, width, rng)
    if kind == "bubble":
        return drawn.bubble(*args, width, rng.uniform(400, 900) / DRAW_MPP, rng)
    if kind == "glass edge":
        return drawn.glass_edge(*args, width, rng)
    return drawn.pen(*args, list(drawn.INKS)[seed % len(drawn.INKS)], width, rng)


def look(slide: Opened, rgb: NDArray[np.uint8]) -> tuple[dict[str, Floats], NDArray[np.uint8]]:
    """Measures of every patch, ours and classical ones, on the picture as JPEG at LOOK_MPP."""
    height, width = rgb.shape[:2]
    factor = DRAW_MPP / LOOK_MPP
    small = area_resize(drawn.compressed(rgb, 85), Size(round(width * factor), round(height * factor)))
    overview = Overview.of(small, slide.mask.pixels, LOOK_MPP)
    ours = measure_overview(overview, slide.grid.coords, slide.geometry.patch_level0, slide.mask.slide_size)
    found = {name: np.nan_to_num(ours[name]) for name in ("fold", "edge", "pen")}
    tissue = overview.tissue
    for name, plane in (("darkness", classical.darkness(small)), ("ridges", classical.ridges(small)),
                        ("pen colours", classical.pen_colours(small))):  # fmt: skip
        found[name] = per_patch(slide, np.where(tissue, plane, plane.min()) if name == "darkness" else plane)
    return found, small


def per_patch(slide: Opened, plane: Floats) -> Floats:
    """Mean of a plane that spans the slide over each patch, (N,)."""
    size = slide.mask.slide_size
    scale = np.array([plane.shape[1] / size.width, plane.shape[0] / size.height])
    first = np.floor(slide.grid.coords * scale).astype(int)
    last = np.maximum(np.ceil((slide.grid.coords + slide.geometry.patch_level0) * scale).astype(int), first + 1)
    return np.array([plane[y:v, x:u].mean() for (x, y), (u, v) in zip(first, last, strict=True)])


def overview_table() -> None:
    """Recall of folds, rims and pen by width."""
    rivals = {"fold": ("fold", "darkness"), "bubble": ("edge", "ridges"), "glass edge": ("edge", "ridges"),
              "pen": ("pen", "pen colours")}  # fmt: skip
    slides = {name: opened(name) for name in SLIDES}
    clean = {name: look(slide, slide.rgb)[0] for name, slide in slides.items()}
    limits = {m: np.percentile(np.concatenate([c[m] for c in clean.values()]), 99) for m in next(iter(clean.values()))}
    print("\n| artefact | measure | H&E | IHC | by width, um | patches |\n|---|---|---|---|---|---|")
    for kind, measures in rivals.items():
        hits: dict[str, dict[object, list[NDArray[np.bool_]]]] = {m: defaultdict(list) for m in measures}
        for name, slide in slides.items():
            for number, width in enumerate(WIDTHS_UM[kind] * REPEATS):
                picture, where = draw(slide, kind, width, 17 * number + len(name))
                positive = per_patch(slide, where.astype(np.float32)) >= COVERED[kind]
                values, _ = look(slide, picture)
                for m in measures:
                    found = values[m][positive] > limits[m]
                    hits[m][width].append(found)
                    hits[m]["IHC" if "IHC" in SLIDES[name] else "H&E"].append(found)
        for m in measures:
            rate = {key: np.mean(np.concatenate(parts)) for key, parts in hits[m].items()}
            count = sum(len(part) for width in WIDTHS_UM[kind] for part in hits[m][width])
            widths = ", ".join(f"{width}: {rate[width]:.2f}" for width in WIDTHS_UM[kind])
            who = f"`{m}` (ours)" if m in ("fold", "edge", "pen") else f"{m} (HistoQC-style)"
            numbers = f"{rate['H&E']:.2f} | {rate['IHC']:.2f} | {widths} | {count}"
            print(f"| {kind} | {who}, threshold {limits[m]:.2g} | {numbers} |")


def tiled(name: str, spec: TileSpec) -> tuple[float, float, Path, tempfile.TemporaryDirectory[str]]:
    """Processor seconds of `segment` and of `tile` on one slide, and its patch store."""
    folder = tempfile.TemporaryDirectory()
    run, path = RunDir(Path(folder.name)), DATA / "slides" / name
    record = SlideRecord(slide_id=path.stem, path=path, patient_id=path.stem, mpp=0.5 if "TCGA" in name else None)
    with OpenOnce(path) as slide:
        started = time.process_time()
        SegmentStage(run, SegmentSpec(), overlay=False).run(record, slide)
        middle = time.process_time()
        TileStage(run, spec).run(record, slide)
    return middle - started, time.process_time() - middle, run.patch_store(record.slide_id), folder


def cost_table() -> None:
    """Processor seconds of segment and tile without quality, with a sample, with all."""
    print("\n| slide | patches | none, s | sample, s | more | all, s | more |\n|---|---|---|---|---|---|---|")
    for name in SLIDES:
        seconds: dict[str, list[float]] = defaultdict(list)
        for _ in range(5):
            for quality in ("none", "sample", "all"):
                one, two, path, folder = tiled(name, TileSpec(quality=quality))
                seconds[quality].append(one + two)
                patches = len(read_patch_table(path).grid)
                folder.cleanup()
        none, sample, every = (float(np.min(seconds[key])) for key in ("none", "sample", "all"))
        more = [f"{value:.2f} | {value / none - 1:.0%}" for value in (sample, every)]
        print(f"| {name} | {patches} | {none:.2f} | {' | '.join(more)} |")


def alarm_table() -> None:
    """Patches beyond the limits on slides as they are."""
    names = [measure.artefact for measure in ARTEFACTS]
    print(f"\n| slide | patches | {' | '.join(names)} | no edges to judge by |\n|---|---|" + "---|" * (len(names) + 1))
    for name, kind in SLIDES.items():
        *_, path, folder = tiled(name, TileSpec(quality="all"))
        table = read_patch_table(path)
        assert table.quality is not None
        why = artefact_of(table.quality, table.geometry.mpp, table.geometry.scan_mpp)
        blank = int(np.isnan(table.quality.column("focus")).sum())
        counts = " | ".join(str(int((why == k).sum())) for k in range(len(names)))
        print(f"| {name} ({kind}) | {len(why)} | {counts} | {blank} |")
        folder.cleanup()


def pictures(folder: Path) -> None:
    """What is found on drawn artefacts and on the marked slides, beside the picture."""
    from wsi_pipeline.quality.folds import fold_mask
    from wsi_pipeline.quality.glass_edges import edge_mask
    from wsi_pipeline.tissue.detectors.filters import local_deviation
    from wsi_pipeline.tissue.detectors.pen import pen_mask

    folder.mkdir(parents=True, exist_ok=True)
    for stem, small, mask, mpp in _seen():
        overview = Overview.of(small, mask, mpp)
        ink = pen_mask(overview.density, local_deviation(overview.density.mean(axis=0), 1), mpp)
        shown = small.copy()
        if mpp <= 20:
            shown[fold_mask(overview.density, overview.tissue & ~ink, mpp)] = (240, 228, 66)
            shown[edge_mask(overview.density, mpp)] = (0, 158, 115)
        shown[ink] = (0, 114, 178)
        Image.fromarray(np.hstack([small, shown])).save(folder / f"{stem}.png")


def _seen() -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_], float]]:
    for name in ("metaplasia-HE.svs", "metaplasia-trypsin-IHC.svs", "lung-SCC-HE3.svs"):
        slide = opened(name)
        for kind, widths in WIDTHS_UM.items():
            picture, _ = draw(slide, kind, widths[1], 5)
            yield f"{Path(name).stem}-{kind}", look(slide, picture)[1], slide.mask.pixels, LOOK_MPP
    for path in sorted((DATA / "thumbnails_pen").iterdir()):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        size, mpp = Size(rgb.shape[1], rgb.shape[0]), 37.0  # about 22 mm across
        yield path.stem, rgb, segment_tissue(rgb, size, mpp, SegmentSpec()).mask.pixels, mpp


PARTS = {"focus": focus_table, "overview": overview_table, "alarms": alarm_table, "cost": cost_table}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=tuple(PARTS))
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    if options.pictures:
        pictures(options.pictures)
    else:
        for part in [options.part] if options.part else PARTS:
            PARTS[part]()
