"""Reading speed: patches a second through the patch reader against OpenSlide, against decoding alone, against cuCIM.

    python benchmarks/reading.py [--data FOLDER] [--patches N] [--rounds R]

On real slides of the data folder (WSI_PIPELINE_DATA), warm file cache, 16 patches a batch, one thread unless said
otherwise; libraries' own threads are set to one. The ways take turns, round after round, each with files opened anew
(OpenSlide keeps decoded tiles). Ratios are of processor time, which on a busy machine says what a quiet one would, with
those of wall time beside them; medians over rounds.

    ours         PatchReader over the slide as `open_slide` opens it
    openslide    read_region and area mean, patch by patch
    decoding     the stored tiles that the patches need, each once, from memory, by libjpeg-turbo at the same scale
    cucim        read_region on the CPU and area mean, where `pip install --no-deps cucim-cu12` has been done
    two          ours with two threads (wall time only: it says what the cores that are free give)
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.reading.patch_reader import PatchReader, SlidePatches, shrink_to
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.tiling.resolve import PatchGeometry, resolve_geometry

BATCH = 16
CASES = (
    ("40x JPEG, to 0.5 mpp (1/2)", "metaplasia-HE.svs", 0.5, None),
    ("40x JPEG, to 0.5 mpp (1/1.9)", "lung-SCC-HE3.svs", 0.5, None),
    ("native, 256 px tiles", "metaplasia-HE.svs", 0.2528, None),
    ("native, 240 px tiles", "CMU-1-Small-Region.svs", 0.499, None),
    ("JPEG 2000, native", "TCGA-CR-7395-01A-01-TS1.svs", 0.25, 0.25),
    ("JPEG 2000, level 0 to 1/4", "TCGA-CR-7395-01A-01-TS1.svs", 1.0, 0.25),
)
Seconds = tuple[float, float]


def grid(slide: Slide, place: PatchGeometry, most: int) -> NDArray[np.int64]:
    """Patches wholly inside, in store order, from the middle of the slide."""
    step, size = place.patch_level0, slide.info.size
    rows = range(0, size.height - step + 1, step)
    coords = np.array([(x, y) for y in rows for x in range(0, size.width - step + 1, step)], np.int64)
    first = max(0, (len(coords) - most) // 2)
    return coords[first : first + most]


def timed(work: Callable[[], None]) -> Seconds:
    """(wall, processor) seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def reader(source: SlidePatches, threads: int) -> Callable[[], None]:
    """Reads all patches."""

    def work() -> None:
        for _ in PatchReader(source, BATCH, threads):
            pass

    return work


def one_by_one(read: Callable[[int, int], NDArray[np.uint8]], source: SlidePatches) -> Callable[[], None]:
    """Reads region after region, as a generic reader does, and shrinks each."""

    def work() -> None:
        for x, y in source.coords.tolist():
            shrink_to(read(x, y), source.geometry.patch_px)

    return work


def decoding(source: SlidePatches) -> Callable[[], None] | None:
    """Decodes every tile that is needed, from memory; None where they are no JPEG."""
    plan = source.plan
    assert plan is not None
    tile = plan.tiles.tile
    needed = [(plan.tiles.raw(column, row), shrink) for shrink, uses in plan.uses(0).items()
              for row, column in np.argwhere(uses).tolist()]  # fmt: skip
    files = [(data, shrink) for data, shrink in needed if data is not None]
    if not files:
        return None

    def work() -> None:
        for data, shrink in files:
            simplejpeg.decode_jpeg(data, "RGB", min_height=tile.height // shrink, min_width=tile.width // shrink)

    return work


def cucim_reader(path: Path, place: PatchGeometry) -> Callable[[int, int], NDArray[np.uint8]] | None:
    """cuCIM's read of one region on the CPU; None where it is not installed or refuses the slide."""
    try:
        from cucim.clara import CuImage
    except ImportError:
        return None
    try:
        image: Any = CuImage(str(path))
        side = place.level_px
        image.read_region((0, 0), (side, side), level=place.level)
    except (RuntimeError, ValueError):
        return None
    return lambda x, y: np.asarray(image.read_region((x, y), (side, side), level=place.level))


def ways(path: Path, mpp: float, own_mpp: float | None, most: int, one_level: bool) -> tuple[int, dict[str, Any]]:
    """Number of patches and the works to be timed."""
    slide, other = open_slide(path), open_slide(path, "openslide")
    info = slide.info
    if one_level:
        info = replace(info, levels=info.levels[:1])
    place = resolve_geometry(TileSpec(mpp=mpp), info, own_mpp or info.mpp or 0.5)
    source = SlidePatches(slide, grid(slide, place, most), place)
    side = place.level_px
    works: dict[str, Any] = {
        "ours": reader(source, 1),
        "openslide": one_by_one(lambda x, y: other.read_region(x, y, place.level, side, side), source),
        "decoding": decoding(source),
        "two": reader(source, 2),
    }
    cucim = cucim_reader(path, place)
    works["cucim"] = one_by_one(cucim, source) if cucim else None
    return len(source), {name: work for name, work in works.items() if work}


def ratio(times: dict[str, list[Seconds]], over: str, under: str, which: int) -> str:
    """Median over rounds of over's time to under's, or a dash."""
    if over not in times or under not in times:
        return "-"
    return f"{statistics.median(a[which] / b[which] for a, b in zip(times[over], times[under], strict=True)):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WSI_PIPELINE_DATA", "../shared/data")))
    parser.add_argument("--patches", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; median of {asked.rounds} rounds")
    heads = "".join(f"{head:>15}" for head in ("x openslide", "x cucim", "of decoding"))
    print(f"{'':30}{'patches/s':>10}  processor (wall): {heads}{'two threads':>13}")
    for name, file, mpp, own in CASES:
        times: dict[str, list[Seconds]] = {}
        for _ in range(asked.rounds):
            count, works = ways(asked.data / "slides" / file, mpp, own, asked.patches, one_level="level 0" in name)
            for way, work in works.items():
                times.setdefault(way, []).append(timed(work))
        rate = count / statistics.median(seconds[1] for seconds in times["ours"])
        cells = [f"{ratio(times, a, b, 1)} ({ratio(times, a, b, 0)})"
                 for a, b in (("openslide", "ours"), ("cucim", "ours"), ("decoding", "ours"))]  # fmt: skip
        print(f"{name:30}{rate:>10.0f}{'':20}" + "".join(f"{cell:>15}" for cell in cells)
              + f"{ratio(times, 'ours', 'two', 0):>13}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
