"""Patch classes as areas of a slide: colours, the class of each area, polygons for QuPath.

Patches may overlap. Their edges cut the slide into cells, each covered by one set of patches; a cell gets the class
with the highest mean probability over these patches (the first one if tied). Without overlap, cells are patches.
Patches are clipped to the slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.geojson import to_geojson

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#F0E442", "#56B4E9", "#E69F00")
"""Colours that are safe for colour-blind readers (Okabe and Ito 2008, https://jfly.uni-koeln.de/color), ordered so that
neighbours differ most on grey."""

Colour = tuple[int, int, int]
UNCLEAR, BARE = -1, -2
"""Labels of areas without a class: highest probability below the minimum; not covered by a patch."""

_EQUAL = 1e-9
"""Means that differ by less count as equal; rounding errors of the running sums are far smaller."""
_ROUNDING = 1e-6
"""Tolerance at the minimum probability, since probabilities are stored as float32."""


@dataclass(frozen=True, eq=False)
class ClassAreas:
    """The slide cut into cells: level-0 edges int64 xs (w + 1,) and ys (h + 1,), and label of each cell, int64 (h, w).

    A label is a class number, UNCLEAR or BARE.
    """

    xs: NDArray[np.int64]
    ys: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells into which patch edges cut a slide; every patch covers whole cells.

    xs, ys    int64 (w + 1,) and (h + 1,), level-0 edges of the cells, within the slide
    corners   int64 (4, N), flat index of each patch's four corners in the grid of edges
    """

    xs: NDArray[np.int64]
    ys: NDArray[np.int64]
    corners: NDArray[np.int64]

    @classmethod
    def of(cls, coords: NDArray[np.int64], patch_level0: int, slide_size: Size) -> Cells:
        """The cells of square patches at `coords` (N, 2), clipped to the slide."""
        left, right = (np.clip(coords[:, 0] + shift, 0, slide_size.width) for shift in (0, patch_level0))
        top, bottom = (np.clip(coords[:, 1] + shift, 0, slide_size.height) for shift in (0, patch_level0))
        xs, ys = (np.unique(np.concatenate(ends)) for ends in ((left, right), (top, bottom)))
        if len(xs) < 2 or len(ys) < 2:  # all patches are outside the slide
            return cls(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros((4, len(coords)), np.int64))
        columns, rows = [np.searchsorted(xs, x) for x in (left, right)], [np.searchsorted(ys, y) for y in (top, bottom)]
        return cls(xs, ys, np.stack([row * len(xs) + column for row in rows for column in columns]))

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of `values` (N,) over the patches that cover each cell, (h, w): corner steps, summed along both axes."""
        steps = np.array([1.0, -1.0, -1.0, 1.0])[:, None] * values
        shape = len(self.ys), len(self.xs)
        flat = np.bincount(self.corners.ravel(), weights=steps.ravel(), minlength=shape[0] * shape[1])
        summed = flat.reshape(shape).cumsum(axis=0).cumsum(axis=1)
        return np.asarray(summed[:-1, :-1])


def class_colours(count: int) -> list[Colour]:
    """A colour per class: the palette, then its darker and lighter shades, then from the start."""
    plain = np.array([[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in PALETTE])
    every = np.concatenate([plain, plain * 0.55, 255 - (255 - plain) * 0.5]).round().astype(int)
    return [(int(r), int(g), int(b)) for r, g, b in (every[i % len(every)] for i in range(count))]


def patch_labels(probabilities: NDArray[np.float32], min_probability: float = 0.0) -> NDArray[np.int64]:
    """Class of each patch, int64 (N,), from probabilities (N, C): the most likely one (first if tied), or UNCLEAR."""
    if len(probabilities) == 0:
        return np.zeros(0, np.int64)
    labels = probabilities.argmax(axis=1).astype(np.int64)
    return np.where(probabilities.max(axis=1) >= min_probability - _ROUNDING, labels, UNCLEAR)


def class_areas(
    coords: NDArray[np.int64],
    patch_level0: int,
    probabilities: NDArray[np.float32],
    slide_size: Size,
    min_probability: float = 0.0,
) -> ClassAreas:
    """The class of each part of a slide.

    coords            int64 (N, 2), level-0 top-left (x, y) of each patch, without duplicates
    patch_level0      side of a patch, level-0 pixels
    probabilities     (N, C), row for row with `coords`
    min_probability   areas whose most likely class is below it are UNCLEAR

    Raises WsiPipelineError if shapes do not match.
    """
    if coords.shape != (len(probabilities), 2) or probabilities.ndim != 2:
        raise WsiPipelineError(f"coords {coords.shape} and probabilities {probabilities.shape} do not match")
    cells = Cells.of(coords, patch_level0, slide_size)
    layers = cells.sums(np.ones(len(coords)))
    best, labels = np.full(layers.shape, -1.0), np.full(layers.shape, UNCLEAR, np.int64)
    for number, chances in enumerate(probabilities.T):
        mean = cells.sums(chances.astype(np.float64)) / np.maximum(layers, 1.0)
        better = mean > best + _EQUAL
        best, labels = np.where(better, mean, best), np.where(better, number, labels)
    labels[best < min_probability - _ROUNDING] = UNCLEAR
    labels[layers < 0.5] = BARE
    return ClassAreas(cells.xs, cells.ys, labels)


def class_polygons(areas: ClassAreas, number: int) -> list[Polygon]:
    """The areas of class `number` in level-0 pixels, merged if they share an edge, with holes, from top to bottom."""
    rows, columns = np.nonzero(areas.labels == number)
    if len(rows) == 0:
        return []
    cells = shapely.box(areas.xs[columns], areas.ys[rows], areas.xs[columns + 1], areas.ys[rows + 1])
    joined = shapely.coverage_union_all(cells)
    # Normalised first: rings then start at a true corner, and no point remains in the middle of an edge.
    parts = shapely.get_parts(shapely.simplify(shapely.normalize(joined), 0))
    return sorted(parts, key=lambda part: (part.bounds[1], part.bounds[0]))


def class_geojson(areas: ClassAreas, classes: Sequence[str], mpp: float) -> dict[str, Any]:
    """A FeatureCollection for QuPath: one annotation per area, with name and colour of the class.

    mpp   micrometres per level-0 pixel, for areas in square micrometres
    """
    features: list[Any] = []
    for number, (name, colour) in enumerate(zip(classes, class_colours(len(classes)), strict=True)):
        polygons = class_polygons(areas, number)
        features += to_geojson(polygons, mpp, name=name, colour=colour, locked=False)["features"]
    return {"type": "FeatureCollection", "features": features}
