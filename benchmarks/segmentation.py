"""Tissue detectors side by side: on drawn slides with known tissue, on real slides outlined by hand, and in time.

python benchmarks/segmentation.py                       drawn slides, and the real ones in WSI_PIPELINE_DATA
python benchmarks/segmentation.py --pictures FOLDER     and contact sheets to look at
python benchmarks/segmentation.py --docs docs/img       the picture of drawn slides in docs/segmentation.md
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage as ndi

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "tissue")]

import segmentation_outlines as outlines  # noqa: E402
import segmentation_stains  # noqa: E402
import tissue_scenes  # noqa: E402

from wsi_pipeline.config.specs import SegmentSpec  # noqa: E402
from wsi_pipeline.tissue.cleanup import clean_mask  # noqa: E402
from wsi_pipeline.tissue.detectors.methods import NONE, SEGMENTERS  # noqa: E402

Mask = NDArray[np.bool_]
SPEC = SegmentSpec()


@dataclass(frozen=True)
class Picture:
    """A picture (h, w, 3) at mpp, where tissue is, where ink is (or nothing), and which pixels are asked."""

    name: str
    rgb: NDArray[np.uint8]
    mpp: float
    tissue: Mask
    ink: Mask
    asked: Mask


def fixed_saturation(rgb: NDArray[np.uint8], mpp: float) -> Mask:
    """The usual fixed cut: median of HSV saturation over 7 pixels above 8, closed by 4 pixels."""
    high = rgb.max(axis=2).astype(float)
    saturation = 255 * (high - rgb.min(axis=2)) / np.maximum(high, 1)
    return np.asarray(ndi.binary_closing(ndi.median_filter(saturation, 7) > 8, np.ones((4, 4))))


METHODS: dict[str, Callable[[NDArray[np.uint8], float], Mask]] = {
    **{name: SEGMENTERS.get(name) for name in SEGMENTERS if name != NONE},
    "saturation > 8": fixed_saturation,
}


def drawn(scenes: list[tissue_scenes.Scene]) -> Iterator[Picture]:
    """The drawn slides of the tests; of ink, the middle of the stroke where it lies on glass is asked."""
    for scene in scenes:
        stroke = ndi.binary_erosion(scene.ink, iterations=4) & ~scene.tissue
        yield Picture(scene.name, scene.rgb, tissue_scenes.MPP, scene.tissue, stroke, ~scene.ink)


def real(folder: Path) -> Iterator[Picture]:
    """Slides and marked thumbnails of the data folder that were outlined by hand."""
    # TCGA's file states no mpp and the thumbnails have none: 1.0 and 50 stand in for them.
    for name, file, mpp, tissue, holes in (
        ("H&E (metaplasia-HE)", "metaplasia-HE.svs", 0.2528, outlines.HE, ()),
        ("pale IHC (metaplasia-trypsin-IHC)", "metaplasia-trypsin-IHC.svs", 0.5044, outlines.IHC, ()),
        ("pale and dark cores (lung-SCC-HE3)", "lung-SCC-HE3.svs", 0.263, outlines.LUNG, ()),
        ("scanned in blocks (TCGA-CR-7395)", "TCGA-CR-7395-01A-01-TS1.svs", 1.0, outlines.TCGA, outlines.TCGA_HOLES),
    ):
        rgb = shrunk_slide(folder / "slides" / file, SPEC.mask_mpp / mpp)
        truth = inside(tissue, rgb) & ~inside(holes, rgb)
        yield Picture(name, rgb, SPEC.mask_mpp, truth, np.zeros_like(truth), np.ones_like(truth))
    yield marked(folder, "green-original", outlines.GREEN_PEN, outlines.GREEN_PEN_INK, (), (4.5, 11, 95.5, 90))
    yield marked(
        folder, "slide-4-rgb", outlines.RED_PEN, outlines.RED_PEN_INK, outlines.RED_PEN_GLASS, (6.5, 11.5, 93.5, 90)
    )


def restained(folder: Path, factor: int = 4) -> Iterator[Picture]:
    """The H&E slide outlined by hand, in other stains."""
    fine = shrunk_slide(folder / "slides" / "metaplasia-HE.svs", SPEC.mask_mpp / factor / 0.2528)
    for stain, rgb in segmentation_stains.restained(fine, factor).items():
        truth = inside(outlines.HE, rgb)
        yield Picture(stain, rgb, SPEC.mask_mpp, truth, np.zeros_like(truth), np.ones_like(truth))


def marked(
    folder: Path, name: str, tissue: tuple, ink: tuple, glass: tuple, window: tuple[float, float, float, float]
) -> Picture:
    """A marked thumbnail, cut out of its window; with `glass`, only what was outlined is asked."""
    rgb = np.asarray(Image.open(folder / "thumbnails_pen" / f"codait_{name}.png").convert("RGB"))
    truth, strokes = inside(tissue, rgb), inside(ink, rgb)
    asked = (truth | inside(glass, rgb) if glass else np.ones_like(truth)) & ~strokes
    height, width = truth.shape
    left, top, right, bottom = (
        round(part * side / 100) for part, side in zip(window, (width, height) * 2, strict=True)
    )
    cut = (slice(top, bottom), slice(left, right))
    return Picture(f"pen (codait_{name})", rgb[cut].copy(), 50.0, truth[cut], strokes[cut], asked[cut])


def shrunk_slide(path: Path, downsample: float) -> NDArray[np.uint8]:
    """The whole slide shrunk by area averaging, read in strips."""
    with openslide.OpenSlide(str(path)) as slide:
        width, height = (round(side / downsample) for side in slide.dimensions)
        level = slide.get_best_level_for_downsample(downsample)
        level_width, level_height = slide.level_dimensions[level]
        out = np.empty((height, width, 3), dtype=np.uint8)
        for row in range(0, height, 64):
            end = min(height, row + 64)
            y0, y1 = (round(edge * level_height / height) for edge in (row, end))
            strip = slide.read_region((0, round(y0 * slide.level_downsamples[level])), level, (level_width, y1 - y0))
            white = Image.new("RGBA", strip.size, "white")
            paper = Image.alpha_composite(white, strip).convert("RGB")
            out[row:end] = np.asarray(paper.resize((width, end - row), Image.Resampling.BOX))
    return out


def inside(rings: tuple, rgb: NDArray[np.uint8]) -> Mask:
    """Pixels within any of the rings, whose corners are in percent of width and height."""
    height, width = rgb.shape[:2]
    canvas = Image.new("1", (width, height))
    for corners in rings:
        ImageDraw.Draw(canvas).polygon([(x * width / 100, y * height / 100) for x, y in corners], fill=1)
    return np.asarray(canvas, dtype=bool)


def found(picture: Picture, method: str) -> Mask:
    """The mask as the pipeline makes it, clean-up included."""
    raw = METHODS[method](picture.rgb, picture.mpp)
    return clean_mask(raw, picture.mpp**2, SPEC.min_tissue_um2, SPEC.max_hole_um2)


def score(picture: Picture, mask: Mask) -> str:
    """Dice in percent; on a blank slide the percent called tissue; then the percent of ink called tissue."""
    truth, mask_asked = picture.tissue & picture.asked, mask & picture.asked
    both = np.count_nonzero(truth) + np.count_nonzero(mask_asked)
    if truth.any():
        text = f"{200 * np.count_nonzero(truth & mask_asked) / both:.1f}"
    else:
        text = f"{100 * np.mean(mask):.1f} found"
    return f"{text} / ink {100 * np.mean(mask[picture.ink]):.0f}" if picture.ink.any() else text


def table(title: str, pictures: list[Picture]) -> None:
    """Print one row a picture, one column a method, in Markdown."""
    print(f"\n| {title} | " + " | ".join(METHODS) + " |")
    print("|---|" + "--:|" * len(METHODS))
    for picture in pictures:
        print(f"| {picture.name} | " + " | ".join(score(picture, found(picture, method)) for method in METHODS) + " |")


def ink_table(zoom: int = 4) -> None:
    """Print what part of saturated ink that crosses H&E tissue is called tissue, where it lies on glass."""
    plain, _ = tissue_scenes.follicular(zoom)
    widths, factors = (24, 48, 120, 360), (1, 4, 8)
    print("\n| hybrid at 2 / 8 / 16 mpp | " + " | ".join(f"{width / 1000:g} mm" for width in widths) + " |")
    print("|---|" + "--:|" * len(widths))
    for pen in tissue_scenes.FELT_PENS:
        cells = []
        for width in widths:
            scene = tissue_scenes.crossed(plain, pen, width, zoom)
            stroke = ndi.binary_erosion(scene.ink, iterations=2) & ~ndi.binary_dilation(plain.tissue, iterations=12)
            cells.append(" / ".join(f"{100 * kept_ink(scene, stroke, factor):.0f}" for factor in factors))
        print(f"| {pen} | " + " | ".join(cells) + " |")


def kept_ink(scene: tissue_scenes.Scene, stroke: Mask, factor: int) -> float:
    """Part of the stroke that the default detector keeps in the scene (at 2 mpp) shrunk by `factor`."""
    rgb = np.rint(tissue_scenes.coarser(scene.rgb, factor)).astype(np.uint8)
    asked = tissue_scenes.coarser(stroke, factor) > 0.5
    mask = found(Picture("", rgb, 2.0 * factor, asked, asked, asked), "hybrid")
    return float(np.mean(mask[asked]))


def speed(side: int = 3000) -> None:
    """Print the processor time of one core for a picture of side x side pixels, clean-up included."""
    scene = tissue_scenes.marked(tissue_scenes.stained("H&E", tissue_scenes.blob(1)), "blue", tissue_scenes.CORNER)
    height, width = scene.tissue.shape
    tiled = np.tile(scene.rgb, (-(-side // height), -(-side // width), 1))[:side, :side].copy()
    none = np.zeros((side, side), dtype=bool)
    picture = Picture("speed", tiled, 8.0, none, none, ~none)
    print(f"\n| {side} x {side} pixels, one core | seconds |\n|---|--:|")
    for method in METHODS:
        times = []
        for _ in range(3):
            start = time.process_time()
            found(picture, method)
            times.append(time.process_time() - start)
        print(f"| {method} | {min(times):.2f} |")


def sheet(pictures: list[Picture], methods: list[str], path: Path, cell: int = 360, columns: int = 5) -> None:
    """Save outlines over the pictures, what is no tissue veiled in yellow."""
    cells = []
    for picture in pictures:
        for method in methods:
            mask = found(picture, method)
            edge = mask ^ ndi.binary_erosion(mask, iterations=max(1, mask.shape[1] // 250))
            shown = picture.rgb.astype(float)
            shown[~mask] = 0.8 * shown[~mask] + 0.2 * np.array([255, 255, 120])
            shown[edge] = (0, 150, 90)
            image = Image.fromarray(shown.astype(np.uint8))
            image.thumbnail((cell - 4, cell * 3 // 4), Image.Resampling.BOX)
            plate = Image.new("RGB", (cell, cell * 3 // 4 + 18), "white")
            plate.paste(image, (0, 18))
            ImageDraw.Draw(plate).text((2, 3), picture.name + (f", {method}" if len(methods) > 1 else ""), fill="black")
            cells.append(plate)
    columns = len(methods) if len(methods) > 1 else columns
    out = Image.new("RGB", (columns * cell, -(-len(cells) // columns) * cells[0].height), "white")
    for place, plate in enumerate(cells):
        out.paste(plate, (place % columns * cell, place // columns * plate.height))
    path.parent.mkdir(parents=True, exist_ok=True)
    out.save(path, quality=80)
    print(f"wrote {path}")


def main() -> None:
    """Read the options, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets of all methods")
    parser.add_argument("--docs", type=Path, help="folder for the picture of the documentation (drawn slides only)")
    options = parser.parse_args()
    scenes = list(drawn(tissue_scenes.scenes()))
    if options.docs:
        sheet(scenes, ["hybrid"], options.docs / "segmentation-drawn.jpg", cell=230, columns=7)
        return
    table("drawn slide, Dice in percent", scenes)
    table("drawn slide made to fail, Dice in percent", list(drawn(tissue_scenes.hard_scenes())))
    ink_table()
    folder = Path(os.environ.get("WSI_PIPELINE_DATA", ROOT.parent / "shared" / "data"))
    slides = list(real(folder)) if (folder / "slides").is_dir() else []
    if slides:
        table("real slide, Dice in percent", slides)
        stains = list(restained(folder))
        table("real slide in made-up stains, Dice in percent", stains)
    else:
        print("\nno real slides here: set WSI_PIPELINE_DATA")
    speed()
    if options.pictures:
        sheet(scenes, list(METHODS), options.pictures / "drawn.png")
        if slides:
            sheet(slides, list(METHODS), options.pictures / "real.png", cell=520)
            sheet(stains, list(METHODS), options.pictures / "stains.png")


if __name__ == "__main__":
    main()
