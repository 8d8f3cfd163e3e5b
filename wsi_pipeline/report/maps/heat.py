"""Attention over the slide as numbers and outlines: percentiles, means of overlapping patches, bands.

Outlines are for QuPath, where a pathologist wants to visit the regions that the model attends to rather than browse one
object per patch. Adjacent patches of the same band (strongest 5 %, next 15 %) share one outline with their mean
attention; sorted by it, QuPath's annotation list is a list of regions to visit. The CSV file beside it has every patch.
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
from wsi_pipeline.report.maps.class_areas import BARE, UNCLEAR, Cells, ClassAreas, class_polygons
from wsi_pipeline.statistics.ranks import mid_ranks
from wsi_pipeline.tissue.geojson import to_geojson

BANDS = ((95.0, "Attention: strongest 5 %", (253, 231, 37)), (80.0, "Attention: next 15 %", (33, 145, 140)))
"""Lower percentile, class name and colour of each band, strongest first."""
MOST_AREAS = 1000
"""Number of outlines kept per band, largest first, which limits the file to a few hundred kilobytes."""


def percentiles(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Percentile rank of each value, 0 to 100, (N,): mean of the percentage below it and the percentage not above it.

    Tied values share a rank; if all are tied it is 50. Ranks keep the order of values, not their distances.
    """
    if len(values) == 0:
        return np.zeros(0)
    return np.asarray((mid_ranks(values) - 0.5) * (100.0 / len(values)), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class FieldCells:
    """A field that is constant on the cells between the edges of patches, so that most pixels need no arithmetic.

    mean, cover   float64 (R, C), mean value and covered fraction of each cell
    row, column   int64 (h,) and (w,), the cell of each row and column of the picture, ascending
    """

    mean: NDArray[np.float64]
    cover: NDArray[np.float64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (R, C) of the cells on the pixels (h, w)."""
        return values[self.row][:, self.column]


def field_cells(
    shape: tuple[int, ...],
    slide_size: Size,
    coords: NDArray[np.int64],
    patch_size_level0: int,
    values: NDArray[np.floating],
    rows: tuple[int, int] | None = None,
) -> FieldCells:
    """Mean value and covered fraction of each pixel of a picture of the slide, by exact area, as cells.

    shape    (h, w) of the picture, which spans the whole slide
    coords   int64 (N, 2), level-0 top-left of each patch; values (N,), row for row
    rows     only these rows of the picture, first to one after the last (default: all)

    A pixel covered by several patches has their mean, weighted by the covered area; a pixel not covered by any patch
    has value 0 and coverage 0. Patches are clipped to the slide.
    """
    height, width = int(shape[0]), int(shape[1])
    first, end = rows or (0, height)
    down, across = height / slide_size.height, width / slide_size.width
    near = (coords[:, 1] * down < end) & ((coords[:, 1] + patch_size_level0) * down > first)
    coords, values = coords[near], values[near]
    if not len(coords):
        bare = np.zeros((1, 1))
        return FieldCells(bare, bare, np.zeros(end - first, np.int64), np.zeros(width, np.int64))
    left, top = (np.asarray(coords[:, axis], np.float64) for axis in (0, 1))
    column, column_step, columns = _cell_steps(left * across, patch_size_level0 * across, width)
    row, row_step, lines = _cell_steps(top * down - first, patch_size_level0 * down, end - first)
    offset = float(values.min())
    where = (row[:, None, :] * len(columns) + column[None, :, :]).ravel()
    step = row_step[:, None, :] * column_step[None, :, :]
    weight, total = (
        np.bincount(where, weights=steps.ravel(), minlength=len(lines) * len(columns))
        .reshape(len(lines), len(columns))
        .cumsum(axis=0)
        .cumsum(axis=1)
        for steps in (step, step * (values.astype(np.float64) - offset))
    )
    touched = weight > 1e-6
    mean = np.divide(total, weight, out=np.zeros_like(total), where=touched)
    return FieldCells(
        np.where(touched, mean + offset, 0.0),
        np.where(touched, np.minimum(weight, 1.0), 0.0),
        np.searchsorted(lines, np.arange(end - first), side="right") - 1,
        np.searchsorted(columns, np.arange(width), side="right") - 1,
    )


def check_patches(coords: NDArray[np.int64], patch_size_level0: int, values: NDArray[np.floating]) -> None:
    """Raise WsiPipelineError if shapes do not match or a value is not finite."""
    if coords.ndim != 2 or coords.shape[1] != 2 or values.shape != (len(coords),):
        raise WsiPipelineError(f"coords must be (N, 2) and values (N,), got {coords.shape} and {values.shape}")
    if patch_size_level0 < 1:
        raise WsiPipelineError(f"patch_size_level0 must be >= 1, got {patch_size_level0}")
    if not np.all(np.isfinite(values)):
        raise WsiPipelineError(f"heatmap values must be finite, got {int(np.sum(~np.isfinite(values)))} that are not")


def band_areas(
    coords: NDArray[np.int64],
    patch_size_level0: int,
    values: NDArray[np.float64],
    slide_size: Size,
    floors: Sequence[float],
) -> ClassAreas:
    """The band of each part of a slide: label k for the first of the descending `floors` that its mean value reaches.

    The mean is over the patches that overlap there; UNCLEAR if it is below all floors.
    """
    cells = Cells.of(coords, patch_size_level0, slide_size)
    layers = cells.sums(np.ones(len(coords)))
    mean = cells.sums(values) / np.maximum(layers, 1.0)
    labels = np.full(layers.shape, UNCLEAR, np.int64)
    for number, floor in reversed(list(enumerate(floors))):
        labels[mean >= floor - 1e-9] = number
    labels[layers < 0.5] = BARE
    return ClassAreas(cells.xs, cells.ys, labels)


def attention_geojson(
    coords: NDArray[np.int64],
    patch_size_level0: int,
    values: NDArray[np.floating],
    slide_size: Size,
    mpp: float,
) -> dict[str, Any]:
    """A FeatureCollection of the areas of both bands, in level-0 pixels, strongest first.

    mpp   micrometres per level-0 pixel

    Where patches overlap, the percentile of an area is the mean of theirs. Each feature has the measurements `Attention
    (even share = 1)`, the mean over its patches, and `Patches`, the number of patches whose centre is inside.
    `left_out` counts the smaller areas of each band that were not kept.
    """
    areas = band_areas(coords, patch_size_level0, percentiles(values), slide_size, [floor for floor, _, _ in BANDS])
    shares, centres = values.astype(np.float64) * len(values), np.asarray(coords + patch_size_level0 / 2, np.float64)
    features: list[Any] = []
    left_out = {}
    for number, (_, name, colour) in enumerate(BANDS):
        polygons = sorted(class_polygons(areas, number), key=lambda polygon: -polygon.area)
        kept = polygons[:MOST_AREAS]
        made = to_geojson(kept, mpp, name=name, colour=colour, locked=False)["features"]
        features += _measured(made, kept, centres, shares)
        left_out[name] = len(polygons) - len(kept)
    return {"type": "FeatureCollection", "features": features, "left_out": left_out}


def _measured(
    features: list[Any], polygons: Sequence[Polygon], centres: NDArray[np.float64], shares: NDArray[np.float64]
) -> list[Any]:
    """The features with their attention, strongest first."""
    if not polygons:
        return []
    points = shapely.points(centres)
    point, area = shapely.STRtree(points).query(polygons, predicate="intersects")[::-1]
    count = np.bincount(area, minlength=len(polygons))
    mean = np.bincount(area, weights=shares[point], minlength=len(polygons)) / np.maximum(count, 1)
    for feature, share, patches in zip(features, mean.tolist(), count.tolist(), strict=True):
        measured = {"Attention (even share = 1)": round(share, 3), "Patches": patches}
        feature["properties"]["measurements"].update(measured)
    return [features[i] for i in np.argsort(-mean, kind="stable")]


def _cell_steps(
    start: NDArray[np.float64], length: float, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Changes of each box's coverage along one axis: cells and steps, both (4, N), and the first pixel of each cell.

    Their running sum is the covered fraction of each pixel: an edge at position t contributes a step of 1 - frac(t) in
    pixel floor(t) and of frac(t) in the next. Pixels without a step are like the one before and share its cell.
    """
    edges = np.clip(np.stack([start, start + length]), 0.0, float(limit))
    first = np.floor(edges).astype(np.int64)
    part = edges - first
    index = np.concatenate([first, first + 1])
    step = np.concatenate([1.0 - part, part]) * np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    cells, inverse = np.unique(np.append(index.ravel(), 0), return_inverse=True)
    return inverse[:-1].reshape(index.shape), step, cells
