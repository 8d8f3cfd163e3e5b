"""Regions as a pathologist would outline them: coarse areas of one kind of tissue, what is mixed left out."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.demo.layout import BACKGROUND, FAT, GLAND, LYMPHOID, STEP, STROMA, TISSUE_CLASSES, TUMOUR
from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.contours import tissue_polygons
from wsi_pipeline.tissue.geojson import to_geojson
from wsi_pipeline.tissue.mask import TissueMask

WINDOW = 20
"""Cells (of STEP pixels) across the surroundings that decide what a place is: 80 micrometres."""
SMALLEST = 24 * 24
"""Cells of the smallest region that is outlined."""
SHARES = ((TUMOUR, 0.60), (FAT, 0.50), (LYMPHOID, 0.40), (GLAND, 0.20))
"""Part of the tissue around from which a place counts as this, first match wins: glands lie in stroma, so few do."""
PURE_STROMA, MOST_EMPTY = 0.85, 0.5

_COLOURS = {
    STROMA: (230, 159, 0),
    GLAND: (0, 114, 178),
    LYMPHOID: (86, 47, 148),
    FAT: (240, 228, 66),
    TUMOUR: (200, 0, 0),
}


def region_map(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What each cell's surroundings are: an index into TISSUE_CLASSES, BACKGROUND where they are mixed or empty.

    classes   uint8 (h, w), the class map of a slide, one cell per STEP x STEP pixels
    """
    share = [
        ndimage.uniform_filter((classes == kind).astype(np.float32), WINDOW) for kind in range(len(TISSUE_CLASSES))
    ]
    tissue = 1 - share[BACKGROUND]
    regions = np.where(share[STROMA] >= PURE_STROMA * tissue, STROMA, BACKGROUND).astype(np.uint8)
    for kind, least in reversed(SHARES):
        regions[share[kind] >= least * tissue] = kind
    regions[tissue < 1 - MOST_EMPTY] = BACKGROUND
    return regions


def regions_geojson(classes: NDArray[np.uint8], size: Size, mpp: float) -> str:
    """The regions of a class map as QuPath annotations, classified by the names of TISSUE_CLASSES.

    size   of the slide, level-0 pixels; mpp   micrometres per level-0 pixel
    """
    regions = region_map(classes)
    features = []
    for kind, colour in _COLOURS.items():
        mask = TissueMask(_without_specks(regions == kind), size, mpp)
        polygons = [polygon for polygon in tissue_polygons(mask) if polygon.area >= SMALLEST * STEP**2]
        features += to_geojson(polygons, mpp, name=TISSUE_CLASSES[kind], colour=colour, locked=False)["features"]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"


def _without_specks(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The area without threads and without holes narrower than a few cells."""
    return np.asarray(ndimage.binary_closing(ndimage.binary_opening(area, iterations=3), iterations=3))
