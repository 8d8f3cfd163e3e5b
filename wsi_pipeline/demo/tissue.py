"""Paint synthetic H&E tissue: from a recipe to a picture with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.demo.artefacts import add_red_cells
from wsi_pipeline.demo.canvas import Canvas
from wsi_pipeline.demo.glands import paint_glands, paint_vessels
from wsi_pipeline.demo.layout import Layout, Recipe, empty_layout, plan_layout
from wsi_pipeline.demo.stain import SITES, Site, Staining, develop
from wsi_pipeline.demo.stroma import paint_fat, paint_follicles, paint_infiltrate, paint_stroma, paint_stroma_cells
from wsi_pipeline.demo.tumour import paint_tumour
from wsi_pipeline.geometry import Size


@dataclass(frozen=True, eq=False)
class Painting:
    """A painted picture, uint8 RGB (height, width, 3), and the layout that is its ground truth."""

    pixels: NDArray[np.uint8]
    layout: Layout

    @property
    def classes(self) -> NDArray[np.uint8]:
        """Map of TISSUE_CLASSES, uint8, one cell per STEP x STEP pixels."""
        return self.layout.classes


def paint_tissue(recipe: Recipe, site: Site, staining: Staining, rng: np.random.Generator) -> Painting:
    """Paint one slide's picture at 0.5 micrometres per pixel."""
    layout = plan_layout(recipe, rng)
    canvas = Canvas.empty(recipe.size)
    paint_stroma(canvas, layout)
    paint_infiltrate(canvas, layout, rng)
    paint_fat(canvas, layout, rng)
    paint_stroma_cells(canvas, layout, rng)
    blood = paint_vessels(canvas, layout, rng)
    paint_tumour(canvas, layout, rng)
    paint_glands(canvas, layout, rng)
    paint_follicles(canvas, layout, rng)
    pixels = develop(canvas, layout, site, staining, rng)
    add_red_cells(pixels, blood, rng)
    return Painting(pixels, layout)


def blank_glass(size: Size, site: Site, rng: np.random.Generator) -> Painting:
    """A slide with nothing on it."""
    layout = empty_layout(size)
    return Painting(develop(Canvas.empty(size), layout, site, Staining(), rng), layout)


def synthetic_tissue(
    size: int | tuple[int, int], seed: int, *, tumour: bool = False, site: int = 0
) -> NDArray[np.uint8]:
    """A picture full of synthetic H&E tissue at 0.5 micrometres per pixel, uint8 RGB (height, width, 3).

    size      side, or (width, height), in pixels
    seed      the same seed gives the same picture
    tumour    fill it with tumour instead of regular glands
    site      index into SITES, which determines stain and scanner
    """
    width, height = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(seed)
    reach = float(np.hypot(width, height))
    recipe = Recipe(
        Size(width, height),
        pieces=0,
        tumour=int(tumour),
        tumour_radius=reach * 1.6,
        gland_density=float(rng.uniform(0.6, 1)),
        inflammation=float(rng.uniform(0, 0.5)),
        follicles=0,
        fat=0.0,
    )
    return paint_tissue(recipe, SITES[site], Staining.draw(rng), rng).pixels
