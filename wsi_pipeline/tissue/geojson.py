"""Polygons to and from GeoJSON as QuPath writes and reads it (https://qupath.readthedocs.io, GeoJSON export).

Coordinates are level-0 pixels, x to the right and y down, as QuPath has them: not degrees as in RFC 7946.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shapely.errors import ShapelyError
from shapely.geometry import MultiPolygon, Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import UsageError

AREA_NAME = "Area µm^2"
TISSUE_COLOUR = (31, 158, 137)
_DECIMALS = 2
_AREAL = {"Polygon", "MultiPolygon", "GeometryCollection"}


def to_geojson(
    polygons: Iterable[Polygon | MultiPolygon],
    mpp: float,
    *,
    name: str = "Tissue",
    colour: tuple[int, int, int] = TISSUE_COLOUR,
    locked: bool = True,
) -> dict[str, Any]:
    """A FeatureCollection with one annotation per polygon, classified as `name`.

    mpp   micrometres per level-0 pixel, for the area in `properties` (square micrometres)

    Ids derive from class and outline, so that equal tissue gives an equal file.
    """
    features = [_feature(polygon, mpp, name, colour, locked) for polygon in polygons]
    return {"type": "FeatureCollection", "features": features}


def _feature(
    polygon: Polygon | MultiPolygon, mpp: float, name: str, colour: tuple[int, int, int], locked: bool
) -> dict[str, Any]:
    geometry = mapping(polygon)
    coordinates = _rounded(geometry["coordinates"])
    area_um2 = round(polygon.area * mpp**2, 1)
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {coordinates}")),
        "geometry": {"type": geometry["type"], "coordinates": coordinates},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(colour)},
            "isLocked": locked,
            "area_um2": area_um2,
            "measurements": {AREA_NAME: area_um2},
        },
    }


def _rounded(coordinates: Any) -> Any:
    if isinstance(coordinates, float | int):
        return round(float(coordinates), _DECIMALS)
    return [_rounded(part) for part in coordinates]


def from_geojson(document: Mapping[str, Any] | Sequence[Any]) -> list[Polygon]:
    """The polygons of a FeatureCollection, a Feature, a geometry, or a bare list of features, in their order.

    Multipolygons and collections come apart into polygons; points and lines are left out. Raises UsageError
    for a document that is no GeoJSON or holds a broken ring.
    """
    polygons: list[Polygon] = []
    for number, geometry in enumerate(_geometries(document), start=1):
        try:
            polygons.extend(_polygons(shape(geometry)))
        except (ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            raise UsageError(f"GeoJSON feature {number} has no readable geometry: {error}") from error
    return polygons


def _geometries(document: Any) -> list[Any]:
    if isinstance(document, Mapping):
        if isinstance(document.get("features"), list):
            return _geometries(document["features"])
        if document.get("type") == "Feature":
            return _geometries(document["geometry"]) if document.get("geometry") else []
        if str(document.get("type")) in _AREAL or "coordinates" in document:
            return [document]
    elif isinstance(document, list | tuple):
        return [geometry for part in document for geometry in _geometries(part)]
    raise UsageError(
        "not GeoJSON: expected a FeatureCollection, a Feature or a geometry",
        todo="Export annotations from QuPath with File > Export objects as GeoJSON.",
    )


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    if isinstance(geometry, Polygon):
        return [] if geometry.is_empty else [geometry]
    return [polygon for part in getattr(geometry, "geoms", ()) for polygon in _polygons(part)]
