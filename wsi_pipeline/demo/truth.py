"""The known truth of a painted slide: tumour outlines as GeoJSON, and a map of tissue classes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from wsi_pipeline.demo.layout import STEP, TUMOUR, Layout
from wsi_pipeline.geometry import Box

Ring = list[list[float]]

TUMOUR_COLOUR = [200, 0, 0]


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
    """Part of a level-0 rectangle that each of TISSUE_CLASSES covers, as the class map (STEP pixels a cell) has it.

    Returns (6,), sum 1; all zero where the rectangle misses the map.
    """
    rows = slice(max(box.y // STEP, 0), max(-(-box.bottom // STEP), 0))
    columns = slice(max(box.x // STEP, 0), max(-(-box.right // STEP), 0))
    counts = np.bincount(classes[rows, columns].ravel(), minlength=TUMOUR + 1)
    return np.asarray(counts / max(int(counts.sum()), 1))
