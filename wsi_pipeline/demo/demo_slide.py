"""Make one slide of the demo cohort: paint it, write it, write its ground truth."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from wsi_pipeline.demo.aperio import ScanInfo, write_aperio
from wsi_pipeline.demo.artefacts import add_dust, add_pen_mark
from wsi_pipeline.demo.plan import SlidePlan
from wsi_pipeline.demo.tissue import Painting, blank_glass, paint_tissue
from wsi_pipeline.demo.truth import outlines_geojson, regions_geojson, tumour_outlines
from wsi_pipeline.system.atomic import write_bytes, write_text

INK = (1.5, 0.75, 0.45)
"""Optical density of blue-green felt-pen ink for red, green, blue."""

CUT = 0.4
"""Fraction of the corrupt slide's file that is kept."""


def make_slide(folder: Path, plan: SlidePlan) -> None:
    """Write the slide of a plan and its truth under `folder`, each file whole or not at all.

    The same plan gives the same bytes.
    """
    with threadpool_limits(1):  # many small matrix products, in which threads would only wait for each other
        _make(folder, plan)


def _make(folder: Path, plan: SlidePlan) -> None:
    rng = np.random.default_rng([*plan.seed, 1])
    painting = _paint(plan, rng)
    add_dust(painting.pixels, painting.pixels.size // 900_000, rng)
    if plan.pen:
        add_pen_mark(painting.pixels, INK, rng)
    classes = io.BytesIO()
    Image.fromarray(painting.classes).save(classes, "PNG")
    write_text(folder / plan.outlines, _outlines(plan, painting))
    write_bytes(folder / plan.class_map, classes.getvalue())
    info = ScanInfo(plan.slide_id, plan.site.mpp if plan.states_mpp else None, plan.site.tile)
    _write_slide(folder / plan.path, painting, info, cut=plan.kind == "corrupt")


def _outlines(plan: SlidePlan, painting: Painting) -> str:
    """GeoJSON of the regions that a pathologist would outline on the slide."""
    if plan.regions:
        return regions_geojson(painting.classes, plan.recipe.size, plan.site.mpp)
    return outlines_geojson(tumour_outlines(painting.layout))


def _paint(plan: SlidePlan, rng: np.random.Generator) -> Painting:
    if plan.kind == "blank":
        return blank_glass(plan.recipe.size, plan.site, rng)
    return paint_tissue(plan.recipe, plan.site, plan.staining, rng)


def _write_slide(path: Path, painting: Painting, info: ScanInfo, *, cut: bool) -> None:
    """Write the file; a corrupt one is cut off at the end, as by an interrupted transfer."""
    if not cut:
        write_aperio(path, painting.pixels, info)
        return
    with TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        write_aperio(whole, painting.pixels, info)
        write_bytes(path, whole.read_bytes()[: int(whole.stat().st_size * CUT)])
