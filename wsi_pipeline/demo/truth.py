"""The ground truth of a painted slide: tumour outlines, tissue classes, and regions as a pathologist outlines them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from wsi_pipeline.demo.layout import (
    BACKGROUND,
    FAT,
    GLAND,
    LYMPHOID,
    STEP,
    STROMA,
    TISSUE_CLASSES,
    TUMOUR,
    Layout,
)
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.tissue.contours import tissue_polygons
from wsi_pipeline.tissue.geojson import to_geojson
from wsi_pipeline.tissue.mask import TissueMask

Ring = list[list[float]]

TUMOUR_COLOUR = [200, 0, 0]

REGION_WINDOW = 20
"""Side of the surroundings that determine the class of a place, in cells of STEP pixels: 80 micrometres."""
SMALLEST_REGION = 24 * 24
"""Size in cells of the smallest region that is outlined."""
REGION_SHARES = ((TUMOUR, 0.60), (FAT, 0.50), (LYMPHOID, 0.40), (GLAND, 0.20))
"""Minimum share of a class in the tissue around a place; the first match wins. Low for glands, which lie in stroma."""
PURE_STROMA, MOST_EMPTY = 0.85, 0.5

_REGION_COLOURS = {
    STROMA: (230, 159, 0),
    GLAND: (0, 114, 178),
    LYMPHOID: (86, 47, 148),
    FAT: (240, 228, 66),
    TUMOUR: (200, 0, 0),
}


def tumour_outlines(layout: Layout) -> list[Ring]:
    """Closed outlines of the tumour regions: lists of [x, y] in level-0 pixels, first point repeated at the end.

    Tears within a region do not interrupt it.
    """
    values = np.pad(layout.tumour.values, 1, constant_values=-float(STEP))
    values = np.where(ndimage.binary_fill_holes(values > 0), np.maximum(values, 1.0), values)
    rings = []
    for contour in measure.find_contours(values, 0.0):  # type: ignore[no-untyped-call]
        contour = measure.approximate_polygon(contour, tolerance=0.25)  # type: ignore[no-untyped-call]
        if len(contour) < 4:
            continue
        x = np.clip((contour[:, 1] - 0.5) * STEP, 0, layout.size.width)
        y = np.clip((contour[:, 0] - 0.5) * STEP, 0, layout.size.height)
        rings.append([[round(float(a), 1), round(float(b), 1)] for a, b in zip(x, y, strict=True)])
    return rings


def outlines_geojson(rings: list[Ring]) -> str:
    """The outlines as a GeoJSON FeatureCollection of QuPath annotations with the class Tumor."""
    features = [_feature(number, ring) for number, ring in enumerate(rings, 1)]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"


def _feature(number: int, ring: Ring) -> dict[str, Any]:
    properties = {
        "objectType": "annotation",
        "name": f"tumour {number}",
        "classification": {"name": "Tumor", "color": TUMOUR_COLOUR},
    }
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def class_fractions(classes: NDArray[np.uint8], box: Box) -> NDArray[np.float64]:
    """Fraction of a level-0 rectangle that each of TISSUE_CLASSES covers, from the class map (STEP pixels per cell).

    Returns (6,), sum 1; all zero if the rectangle misses the map.
    """
    rows = slice(max(box.y // STEP, 0), max(-(-box.bottom // STEP), 0))
    columns = slice(max(box.x // STEP, 0), max(-(-box.right // STEP), 0))
    counts = np.bincount(classes[rows, columns].ravel(), minlength=TUMOUR + 1)
    return np.asarray(counts / max(int(counts.sum()), 1))


def region_map(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class of each cell's surroundings: an index into TISSUE_CLASSES, BACKGROUND if they are mixed or empty.

    classes   uint8 (h, w), the class map of a slide, one cell per STEP x STEP pixels
    """
    share = [
        ndimage.uniform_filter((classes == kind).astype(np.float32), REGION_WINDOW)
        for kind in range(len(TISSUE_CLASSES))
    ]
    tissue = 1 - share[BACKGROUND]
    regions = np.where(share[STROMA] >= PURE_STROMA * tissue, STROMA, BACKGROUND).astype(np.uint8)
    for kind, least in reversed(REGION_SHARES):
        regions[share[kind] >= least * tissue] = kind
    regions[tissue < 1 - MOST_EMPTY] = BACKGROUND
    return regions


def regions_geojson(classes: NDArray[np.uint8], size: Size, mpp: float) -> str:
    """The regions of a class map as QuPath annotations, classified by the names of TISSUE_CLASSES.

    size   of the slide, level-0 pixels; mpp   micrometres per level-0 pixel
    """
    regions = region_map(classes)
    features = []
    for kind, colour in _REGION_COLOURS.items():
        mask = TissueMask(_without_specks(regions == kind), size, mpp)
        polygons = [polygon for polygon in tissue_polygons(mask) if polygon.area >= SMALLEST_REGION * STEP**2]
        features += to_geojson(polygons, mpp, name=TISSUE_CLASSES[kind], colour=colour, locked=False)["features"]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"


def _without_specks(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The area without threads and without holes narrower than a few cells."""
    return np.asarray(ndimage.binary_closing(ndimage.binary_opening(area, iterations=3), iterations=3))
