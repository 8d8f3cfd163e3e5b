"""A small picture of the whole slide, and what it shows about every patch: pen, folds, edges, stain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Size
from wsi_pipeline.quality import measures as m
from wsi_pipeline.quality.folds import fold_mask
from wsi_pipeline.quality.glass_edges import edge_mask
from wsi_pipeline.quality.stain_strength import colour_saturation, stain_densities
from wsi_pipeline.tissue.detectors.filters import local_deviation
from wsi_pipeline.tissue.detectors.optics import background_colour, looks_like_glass, mean_density, optical_density
from wsi_pipeline.tissue.detectors.pen import pen_mask

Plane = NDArray[np.float32]

OVERVIEW_MPP = 16.0
"""Resolution of the picture, micrometres per pixel: twice that of the tissue mask, whose picture `segment` reads."""
COARSEST_MPP = 20.0
"""On coarser pictures folds and edges are thinner than a pixel and are not measured."""


@dataclass(frozen=True, eq=False)
class Overview:
    """A slide at low resolution: optical densities float32 (3, h, w), tissue bool (h, w), micrometres per pixel."""

    rgb: NDArray[np.uint8]
    density: Plane
    tissue: NDArray[np.bool_]
    mpp: float

    @classmethod
    def of(cls, rgb: NDArray[np.uint8], tissue: NDArray[np.bool_], mpp: float) -> Overview:
        """From a picture uint8 (h, w, 3) that spans the slide, and its tissue at any resolution, bool (h', w')."""
        height, width = rgb.shape[:2]
        rows = np.arange(height) * tissue.shape[0] // height
        columns = np.arange(width) * tissue.shape[1] // width
        density = optical_density(rgb, background_colour(rgb, looks_like_glass(rgb)))
        return cls(rgb, density, tissue[rows][:, columns], mpp)


def measure_overview(
    overview: Overview, coords: NDArray[np.int64], side: int, slide_size: Size
) -> Mapping[str, NDArray[np.float32]]:
    """The measures of patches by the overview: name -> float32 (N,). NaN where there is nothing to measure.

    coords   top-left corners int64 (N, 2) in level-0 pixels, and `side` of a patch in them
    """
    density, tissue = overview.density, overview.tissue
    boxes = _Boxes.of(coords, side, slide_size, tissue.shape)
    mean = mean_density(density)
    area, matter = boxes.sums(np.ones_like(mean)), boxes.sums(tissue.astype(np.float32))
    ink = pen_mask(density, local_deviation(mean, 1), overview.mpp)
    found = {m.PEN: _over(boxes.sums(ink.astype(np.float32)), area)}
    if overview.mpp <= COARSEST_MPP:
        folds, edges = fold_mask(density, tissue & ~ink, overview.mpp), edge_mask(density, overview.mpp)
        found[m.FOLD] = _over(boxes.sums(folds.astype(np.float32)), matter)
        found[m.EDGE] = _over(boxes.sums((edges & ~ink).astype(np.float32)), area)
    stain = tissue & ~ink
    amount = boxes.sums(stain.astype(np.float32))
    found[m.SATURATION] = _over(boxes.sums(colour_saturation(overview.rgb) * stain), amount)
    for name, plane in zip((m.HAEMATOXYLIN, m.EOSIN, m.DAB), stain_densities(density, stain), strict=True):
        found[name] = _over(boxes.sums(np.where(stain, plane, 0)), amount)
    return found


def _over(total: Plane, amount: Plane) -> Plane:
    """total / amount, NaN where the latter is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(amount > 0, total / amount, np.nan).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Patches in whole pixels of the overview: first and last row and column of each, the last excluded."""

    top: NDArray[np.intp]
    bottom: NDArray[np.intp]
    left: NDArray[np.intp]
    right: NDArray[np.intp]

    @classmethod
    def of(cls, coords: NDArray[np.int64], side: int, slide: Size, shape: tuple[int, ...]) -> _Boxes:
        """At least one pixel each, within the picture."""
        ends = []
        for axis, (length, pixels) in enumerate(((slide.width, shape[1]), (slide.height, shape[0]))):
            scale = pixels / length
            first = np.clip(np.rint(coords[:, axis] * scale), 0, pixels - 1).astype(np.intp)
            last = np.clip(np.rint((coords[:, axis] + side) * scale), first + 1, pixels).astype(np.intp)
            ends.append((first, last))
        (left, right), (top, bottom) = ends
        return cls(top, bottom, left, right)

    def sums(self, plane: Plane) -> Plane:
        """Sum of a plane (h, w) over each patch, float32 (N,), by a summed-area table (Crow 1984)."""
        table = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
        np.cumsum(plane, axis=0, out=table[1:, 1:])
        np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
        total = table[self.bottom, self.right] - table[self.top, self.right]
        total += table[self.top, self.left] - table[self.bottom, self.left]
        return np.asarray(np.maximum(total, 0), np.float32)
