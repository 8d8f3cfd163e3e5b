"""Where attention is highest, as annotations for QuPath: a few large outlines, not one object for each patch.

A pathologist who opens a slide wants to go where the model looked: the strongest twentieth of the patches, and the
rest of the strongest fifth around it. Each band's touching patches are one outline with its mean attention, so that
QuPath's list sorted by it is a list of places to visit. All patches with their values are in the CSV beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps.class_areas import class_polygons
from wsi_pipeline.report.maps.heat import band_areas, percentiles
from wsi_pipeline.tissue.geojson import to_geojson

BANDS = ((95.0, "Attention: strongest 5 %", (253, 231, 37)), (80.0, "Attention: next 15 %", (33, 145, 140)))
"""Lowest percentile, class name and colour of each band, strongest first."""
MOST_AREAS = 1000
"""Outlines of a band that are kept, the largest first: a file of a few hundred kilobytes at most."""


def attention_geojson(
    coords: NDArray[np.int64],
    patch_size_level0: int,
    values: NDArray[np.floating],
    slide_size: Size,
    mpp: float,
) -> dict[str, Any]:
    """A FeatureCollection of both bands' areas, in level-0 pixels, strongest first.

    mpp   micrometres per level-0 pixel

    Where patches overlap an area's percentile is the mean of theirs. Each feature has the measurements `Attention
    (even share = 1)`, the mean over its patches, and `Patches`, those whose centre lies in it. The band itself notes
    under `left_out` how many smaller areas were not kept.
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
        told = {"Attention (even share = 1)": round(share, 3), "Patches": patches}
        feature["properties"]["measurements"].update(told)
    return [features[i] for i in np.argsort(-mean, kind="stable")]
