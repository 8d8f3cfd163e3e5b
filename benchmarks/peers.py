"""`tile` and the patch loader beside LazySlide's, on every real slide of the data folder, in one warm process.

    pip install lazyslide     (in an environment beside this package's)
    python benchmarks/peers.py [--data FOLDER] [--rounds 3] [--patches 600]

tile     ours: tissue, outlines, overlay picture, patches, both stores, written and flushed to the disk (two threads);
         LazySlide: `find_tissues` and `tile_tissues` with their defaults, kept in memory. 256 px at 0.5 mpp; 2 mpp on
         slides that state none, or that are coarser. Best of the rounds, which take turns.
loader   ours: the reading process of `embed` with two reading threads, its start included; LazySlide: a torch
         DataLoader over `wsi.ds.tile_images()` with two workers, uint8, no transform, its start included. The same
         number of patches of 256 px, batches of 16, from the middle of one 40x JPEG slide.

LazySlide chooses its own slide reader; its name is told. A slide that one of the two refuses says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.system.machine import prepare_process

SLIDES = ("slides", "derived")
LOADED = "metaplasia-HE.svs"
BATCH, WORKERS, PATCH_PX = 16, 2, 256


def ours(path: Path, mpp: float, own_mpp: float | None, folder: Path) -> str:
    """Tile one slide with the stages of `tile`; how many patches."""
    from wsi_pipeline.cohort.manifest import SlideRecord
    from wsi_pipeline.cohort.run_dir import RunDir
    from wsi_pipeline.config.specs import SegmentSpec, TileSpec
    from wsi_pipeline.stages.engine.open_once import OpenOnce
    from wsi_pipeline.stages.segment import SegmentStage
    from wsi_pipeline.stages.tile import TileStage

    run, record = RunDir(folder), SlideRecord("s", path, "s", mpp=own_mpp)
    try:
        with OpenOnce(path) as slide:
            SegmentStage(run, SegmentSpec(), overlay=False).run(record, slide)
            return str(TileStage(run, TileSpec(mpp=mpp)).run(record, slide).summary["patches"])
    except WsiPipelineError as error:
        return f"refused: {error.what}"


def lazyslide(path: Path, mpp: float, own_mpp: float | None, folder: Path) -> str:
    """Tile one slide with LazySlide; how many tiles, and which reader it chose."""
    import lazyslide as zs
    from wsidata import open_wsi

    try:
        wsi = open_wsi(path, store=None)
        zs.pp.find_tissues(wsi)
        zs.pp.tile_tissues(wsi, PATCH_PX, mpp=mpp, slide_mpp=own_mpp)
        return f"{len(wsi['tiles'])} ({wsi.reader.name})"
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
        return f"refused: {type(error).__name__}: {error}"


def lengths(path: Path) -> tuple[float, float | None]:
    """mpp to ask for, and mpp to state for a slide that states none."""
    from wsi_pipeline.slides.open import open_slide

    with open_slide(path) as slide:
        own = slide.info.mpp
    return (0.5, None) if own and own <= 0.5 else (2.0, None) if own else (2.0, 0.5)


def best(ways: dict[str, Callable[[], str]], rounds: int) -> dict[str, tuple[float, str]]:
    """Fewest seconds of each way, and what it said; one round more to warm up."""
    found: dict[str, tuple[float, str]] = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            said = way()
            seconds = time.perf_counter() - started
            if turn:
                found[name] = min(found.get(name, (seconds, said)), (seconds, said))
    return found


def tile_table(data: Path, rounds: int) -> None:
    """A line for each slide, and the sum over those both did."""
    print(f"{'tile':<44}{'ours s':>8}{'LazySlide s':>13}{'ratio':>8}   patches; tiles")
    sums = [0.0, 0.0]
    for path in sorted(path for folder in SLIDES for path in (data / folder).iterdir()):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                given: Any = (path, *lengths(path), Path(scratch))
            except WsiPipelineError as error:
                print(f"{path.name[:43]:<44} not opened: {error}")
                continue
            found = best({"ours": lambda: ours(*given), "lazy": lambda: lazyslide(*given)}, rounds)  # noqa: B023
        (mine, said), (theirs, told) = found["ours"], found["lazy"]
        if "refused" not in said + told:
            sums = [sums[0] + mine, sums[1] + theirs]
        line = f"{path.name[:43]:<44}{mine:>8.2f}{theirs:>13.2f}{theirs / mine:>8.2f}   {said}; {told}"
        print(line.replace("\n", " ")[:170], flush=True)
    print(f"{'all that both tiled':<44}{sums[0]:>8.2f}{sums[1]:>13.2f}{sums[1] / sums[0]:>8.2f}")


def loader_table(path: Path, patches: int, rounds: int) -> None:
    """Patches a second of both loaders."""
    import lazyslide as zs
    import numpy as np
    from embedding_ways import tiled
    from torch.utils.data import DataLoader, Subset
    from wsidata import open_wsi

    from wsi_pipeline.stages.streaming.reader_client import PixelFeed
    from wsi_pipeline.stages.streaming.reader_process import Reading, SlideJob

    wsi = open_wsi(path, store=None)
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, PATCH_PX, mpp=0.5)
    first = max(0, (len(wsi["tiles"]) - patches) // 2)
    rows = range(first, min(first + patches, len(wsi["tiles"])))

    def theirs() -> str:
        loader = DataLoader(Subset(wsi.ds.tile_images(), rows), BATCH, num_workers=WORKERS)
        return str(sum(len(batch["image"]) for batch in loader))

    with tiled(path, patches, PATCH_PX) as (run, record):
        count = _rows(run.patch_store("s"))

        def mine() -> str:
            job = SlideJob(record, run.patch_store("s"), count)
            with PixelFeed([job], Reading(PATCH_PX, BATCH, WORKERS)) as feed:
                return str(sum(len(np.asarray(block)) for _, block in feed.blocks(job)))

        found = best({"ours": mine, "LazySlide": theirs}, rounds)
    rates = {name: int(said) / seconds for name, (seconds, said) in found.items()}
    told = ", ".join(f"{name} {rate:.0f} patches/s ({found[name][1]})" for name, rate in rates.items())
    print(f"\nloader, {path.name}: {told}: ratio {rates['ours'] / rates['LazySlide']:.2f}")


def _rows(path: Path) -> int:
    from wsi_pipeline.store.tables.patch_table import read_patch_table

    return len(read_patch_table(path).grid)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WSI_PIPELINE_DATA", "../shared/data")))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patches", type=int, default=600)
    asked = parser.parse_args()
    if importlib.util.find_spec("lazyslide") is None:
        print("left out: LazySlide is not installed here")
        return
    prepare_process()
    warnings.simplefilter("ignore")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; best of {asked.rounds}")
    tile_table(asked.data, asked.rounds)
    loader_table(asked.data / "slides" / LOADED, asked.patches, asked.rounds)


if __name__ == "__main__":
    main()
