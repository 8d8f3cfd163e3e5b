"""Focus by the resolution of the patches: recall of blurred patches, and false alarms of sharp ones.

python benchmarks/quality_by_mpp.py            recall at the stated limits, and at others in pixels of the patch
python benchmarks/quality_by_mpp.py --alarms   slides as they are: patches out of focus by `tile` at 0.5, 1 and 2 mpp

Patches are blurred at the pixels of the scan (from 1 mpp on: at 0.5 mpp) and given its noise and JPEG, then shrunk, as
`tile` does. Needs the real slides in the folder named by WSI_PIPELINE_DATA.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import drawn_artefacts as drawn
import numpy as np
import quality as slides
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from wsi_pipeline.config.specs import SegmentSpec, TileSpec
from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.quality.focus import edge_width
from wsi_pipeline.quality.measures import FOCUS, LEAST_BLUR_PX, MEASURES, limit_of
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.thumbnail import read_whole
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.tiling.grid import lay_grid
from wsi_pipeline.tissue.segmentation import segment_tissue

Rgb = NDArray[np.uint8]

SIDES = {0.25: 256, 0.5: 256, 1.0: 224, 2.0: 160}
"""Side of a patch in its pixels, by its resolution."""
SIGMAS_UM = {0.25: (0.5, 0.75, 1.0), 0.5: (0.5, 0.75, 1.0, 1.5), 1.0: (1.0, 1.5, 2.0, 3.0), 2.0: (2.0, 3.0, 4.0)}
OTHER_LIMITS_PX = (1.1, 0.8, 0.55)
PER_SLIDE = 16
PALE = 0.4
"""Part of the density of the same patches stained more faintly."""
_NOISE = np.random.default_rng(0).normal(0, 1, (1024, 1024, 3)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Widths:
    """Widths of the edges of patches of one slide in pixels: sharp, sharp and pale, and by blur (N, sigmas)."""

    sharp: NDArray[np.floating]
    pale: NDArray[np.floating]
    blurred: NDArray[np.floating]


def slide_patches(name: str, mpp: float) -> Iterator[tuple[Rgb, float]]:
    """Patches of a slide in its own pixels, or at 0.5 mpp, and that resolution; none if the slide is coarser."""
    with open_slide(slides.DATA / "slides" / name) as slide:
        scan = slide.info.mpp or 0.5
        if mpp < 0.9 * scan:
            return
        base = scan if mpp == 0.25 else 0.5
        side = round(SIDES[mpp] * max(mpp, base) / base)
        read = round(side * base / scan)
        mask = segment_tissue(read_whole(slide, scan, 8.0), slide.info.size, scan, SegmentSpec()).mask
        coords = lay_grid(mask, read, read, 0.5).coords
        for row in np.unique(np.linspace(0, len(coords) - 1, PER_SLIDE).round().astype(int)):
            x, y = (int(value) for value in coords[row])
            x, y = min(x, slide.info.size.width - read), min(y, slide.info.size.height - read)
            rgb = slide.read_region(x, y, 0, read, read)
            yield (area_resize(rgb, Size(side, side)) if read != side else rgb), base


def image_patches(folder: str, mpp: float) -> Iterator[tuple[Rgb, float]]:
    """The same of a set of images; those of the breast set are halved to 0.5 mpp."""
    paths = sorted(p for p in (slides.DATA / "patches" / folder).rglob("*") if p.suffix in (".png", ".tif", ".jpg"))
    for path in paths[:PER_SLIDE]:
        image = Image.open(path).convert("RGB")
        rgb = np.asarray(image.reduce(2) if "breast" in folder else image)
        side = min(*rgb.shape[:2], round(SIDES[mpp] * mpp / 0.5)) // 2 * 2
        yield rgb[:side, :side], 0.5


def scanned(rgb: Rgb, sigma_px: float) -> Rgb:
    """Blurred, with the noise of a sensor, as JPEG."""
    values = rgb.astype(np.float32)
    if sigma_px:
        values = ndi.gaussian_filter(values, (sigma_px, sigma_px, 0), mode="nearest", truncate=3)
    values += _NOISE[: rgb.shape[0], : rgb.shape[1]]
    return drawn.compressed(np.clip(np.rint(values), 0, 255).astype(np.uint8), 85)


def width_at(rgb: Rgb, base: float, sigma_um: float, mpp: float) -> float:
    """Width of the edges of a patch that was blurred in the scan, then shrunk to `mpp`; 0 without edges."""
    seen = scanned(rgb, sigma_um / base)
    if mpp > 1.2 * base:
        side = int(len(seen) * base / mpp)
        seen = area_resize(seen, Size(side, side))
    return float(np.nan_to_num(edge_width(seen)))


def widths(mpp: float) -> dict[str, Widths]:
    """By slide and set of images."""
    found = {}
    sources = {kind: slide_patches(name, mpp) for name, kind in slides.SLIDES.items()}
    if mpp in (0.5, 1.0):
        sources |= {folder: image_patches(folder, mpp) for folder in ("crc_nuclei", "ucsb_breast")}
    for kind, source in sources.items():
        patches = list(source)
        if patches:
            found[kind] = Widths(
                np.array([width_at(rgb, base, 0, mpp) for rgb, base in patches]),
                np.array([width_at(drawn.paler(rgb, PALE), base, 0, mpp) for rgb, base in patches]),
                np.array([[width_at(rgb, base, sigma, mpp) for sigma in SIGMAS_UM[mpp]] for rgb, base in patches]),
            )
    return found


def recall_table() -> None:
    """A row per resolution and limit."""
    focus = next(measure for measure in MEASURES if measure.name == FOCUS)
    print("\n| mpp | limit, um | patches | sharp, alarms | pale, alarms | recall by blur, all | lowest of a slide |")
    print("|---|---|---|---|---|---|---|")
    for mpp, sigmas in SIGMAS_UM.items():
        found = widths(mpp)
        sharp, pale, blurred = (np.concatenate([getattr(w, part) for w in found.values()]) * mpp
                                for part in ("sharp", "pale", "blurred"))  # fmt: skip
        stated = limit_of(focus, mpp, min(mpp, 0.5))
        for limit in sorted({stated, *(max(0.5, px * mpp) for px in OTHER_LIMITS_PX if px != LEAST_BLUR_PX)}):
            hits = ", ".join(f"{s:g} um: {np.mean(blurred[:, k] > limit):.2f}" for k, s in enumerate(sigmas))
            least = ", ".join(
                f"{min(np.mean(w.blurred[:, k] * mpp > limit) for w in found.values()):.2f}" for k in range(len(sigmas))
            )
            alarms = f"{np.mean(sharp > limit):.3f} | {np.mean(pale > limit):.3f}"
            words = f"**{limit:.2f}**" if limit == stated else f"{limit:.2f}"
            print(f"| {mpp:g} | {words} | {len(sharp)} | {alarms} | {hits} | {least} |", flush=True)
        print(f"widest edges at {mpp:g} mpp: sharp {sharp.max() / mpp:.2f} px, pale {pale.max() / mpp:.2f} px")


def alarm_table() -> None:
    """Patches of slides as they are that `tile` calls out of focus, by resolution."""
    print("\n| slide | mpp | patches | out of focus | widest edges, um | limit, um |\n|---|---|---|---|---|---|")
    focus = next(measure for measure in MEASURES if measure.name == FOCUS)
    for name in slides.SLIDES:
        for mpp in (0.5, 1.0, 2.0):
            *_, path, folder = slides.tiled(name, TileSpec(quality="all", mpp=mpp))
            table = read_patch_table(path)
            assert table.quality is not None
            column = table.quality.column(FOCUS)
            limit = limit_of(focus, table.geometry.mpp, table.geometry.scan_mpp)
            print(f"| {name} | {mpp:g} | {len(column)} | {np.sum(column > limit)} | {np.nanmax(column):.2f} "
                  f"| {limit:.2f} |", flush=True)  # fmt: skip
            folder.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alarms", action="store_true")
    (alarm_table if parser.parse_args().alarms else recall_table)()
