"""Count the four walks of docs/architecture.md: modules visited and calls between modules.

    python docs/site/walks.py                          # of this checkout
    python docs/site/walks.py --root ANOTHER_CHECKOUT  # also of one from before the layout of decision 13

Each walk is run on a small synthetic slide with a profiler. A room is a module of the package whose code runs. A step
is a call from one module to another, each pair of functions counted once, however often it is called. What a module
does while it is imported does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

HOUSE = "wsi_pipeline"
IMPORTER = "<frozen importlib"


class Walk:
    """The calls made while `watching`; with `until`, up to the first call of a function of that name."""

    def __init__(self, root: Path, until: str = "") -> None:
        self.prefix, self.until = f"{root / HOUSE}{os.sep}", until
        self.rooms: set[str] = set()
        self.steps: set[tuple[str, str, str, str]] = set()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count what is called in this block, on this thread."""
        sys.setprofile(self._seen)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, _: Any) -> None:
        if self.until and frame.f_code.co_name == self.until:
            sys.setprofile(None)  # stages run in processes of their own
            return
        if event != "call" or frame.f_code.co_name == "<module>" or not self._ours(frame):
            return
        caller = frame.f_back
        while caller is not None and not self._ours(caller) and not caller.f_code.co_filename.startswith(IMPORTER):
            caller = caller.f_back
        if caller is not None and (caller.f_code.co_name == "<module>" or not self._ours(caller)):
            return
        here = frame.f_code
        self.rooms.add(here.co_filename)
        if caller is not None and caller.f_code.co_filename != here.co_filename:
            self.steps.add((caller.f_code.co_filename, _outer(caller), here.co_filename, _outer(frame)))

    def _ours(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self.prefix)


def _outer(frame: FrameType) -> str:
    """A function's name; for a lambda or comprehension, that of the enclosing function."""
    return frame.f_code.co_qualname.split(".<locals>")[0]


def _first(*names: str) -> Any:
    """`module:name` of the first module that exists: older checkouts have other names."""
    for name in names:
        module, _, attribute = name.partition(":")
        with contextlib.suppress(ImportError):
            return getattr(importlib.import_module(f"{HOUSE}.{module}"), attribute)
    raise SystemExit(f"none of {', '.join(names)}")


def _slides(folder: Path) -> Path:
    """Four small pyramids, two patients per class, and their CSV."""
    import numpy as np
    import tifffile

    rng = np.random.default_rng(0)
    rows = ["slide_id,path,patient_id,label"]
    for number in range(4):
        picture = np.full((1024, 1024, 3), 240, np.uint8)
        picture[128:896, 128:896] = rng.integers(90, 200, (768, 768, 3)) * np.array([1.0, 0.7, 0.9])
        with tifffile.TiffWriter(folder / f"s{number}.tif") as tiff:
            for shrink in (1, 4):
                tiff.write(
                    picture[::shrink, ::shrink], tile=(256, 256), photometric="rgb", compression="jpeg",
                    resolution=(20000 / shrink, 20000 / shrink), resolutionunit="centimeter",
                    subfiletype=int(shrink > 1),
                )  # fmt: skip
        rows.append(f"s{number},s{number}.tif,p{number},{'ab'[number % 2]}")
    table = folder / "slides.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def walks(root: Path, folder: Path) -> Iterator[tuple[str, Walk]]:
    """Make a small run and walk through it four times."""
    main: Callable[[list[str]], int] = _first("cli:main")
    table, run = _slides(folder), str(folder / "run")
    tile = ["tile", str(table), "--run", run, "--workers", "0", "--patch-px", "128", "--mpp", "0.5"]

    pixels, open_slide = Walk(root), _first("slides.open:open_slide")
    with pixels.watching(), open_slide(folder / "s0.tif") as slide:
        slide.read_region(300, 300, 0, 128, 128)
    yield "slide path to pixels", pixels

    geometry = Walk(root, until="run_cohort")
    with geometry.watching():
        main(tile)
    yield "an option to its stage", geometry

    yield "a label to a metric", _label_to_metric(root)

    main(tile)
    main(["embed", "--model", "colour", "--run", run])
    main(["train-mil", "--folds", "2", "--epochs", "2", "--permutations", "9", "--bootstrap", "100", "--run", run])
    run_dir = _first("cohort.run_dir:RunDir", "cohort.rundir:RunDir")(Path(run))
    record = _first("cohort.manifest:read_cohort")([run_dir.cohort_csv]).records[0]
    stage = _first("stages.heatmap:HeatmapStage")(run_dir, "colour", "gated-abmil", spec=None)
    heat = Walk(root)
    with contextlib.suppress(SystemExit):
        once = _first("stages.engine.open_once:OpenOnce")(record)
        with heat.watching():
            stage.run(record, once)
    if not heat.rooms:
        with heat.watching():
            stage.run(record)
    yield "a feature row to a heat map", heat


def _label_to_metric(root: Path) -> Walk:
    """Cross-validate 16 synthetic slides."""
    import numpy as np
    import pandas as pd

    rng, ids = np.random.default_rng(0), [f"s{number}" for number in range(16)]
    bags = _first("mil.bags:Bags").from_arrays([rng.normal(size=(5, 8)).astype(np.float32) for _ in ids], ids)
    table = pd.DataFrame({"slide_id": ids, "patient_id": ids, "label": ["a", "b"] * 8})
    spec = _first("config.specs:MilSpec", "specs:MilSpec")(folds=2, epochs=2, permutations=9, bootstrap=100)
    walk = Walk(root)
    validate = _first("mil.validation.crossval:cross_validate_bags", "mil.crossval:cross_validate")
    with walk.watching():
        validate(bags, table, spec)
    return walk


def report(root: Path) -> None:
    """Print the counts of a checkout."""
    sys.path.insert(0, str(root))
    os.environ["PYTHONPATH"] = str(root)  # for the processes of the stages
    importlib.import_module("torch")
    with tempfile.TemporaryDirectory() as name:
        for title, walk in walks(root, Path(name)):
            print(f"{title:<30} {len(walk.rooms):4d} rooms {len(walk.steps):4d} steps", file=sys.__stdout__)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    with contextlib.redirect_stdout(io.StringIO()):
        report(parser.parse_args().root.resolve())
