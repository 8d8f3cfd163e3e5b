"""Polygons to and from GeoJSON as QuPath writes and reads it (https://qupath.readthedocs.io, GeoJSON export).

Coordinates are pixels of the full resolution, x to the right and y down, not degrees as in RFC 7946.
QuPath counts from the corner of `openslide.bounds-*` if a slide has bounds; polygons in this program count from
level-0 (0, 0). `from_origin` converts to QuPath's origin and records it in the file; `origin_in` reads it back.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import MultiPolygon, Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.errors import UsageError

AREA_NAME = "Area µm^2"
TISSUE_COLOUR = (31, 158, 137)
_DECIMALS = 2
_AREAL = {"Polygon", "MultiPolygon", "GeometryCollection"}
_ORIGIN = "level0_origin"
_ORIGIN_IN_HEAD = re.compile(rb'"level0_origin": \[(-?\d+), (-?\d+)\]')
_HEAD_BYTES = 256
_OF_QUPATH = frozenset({"objectType", "object_type", "classification", "isLocked", "measurements"})
"""Properties that QuPath writes and tools for tissue outlines (TRIDENT, LazySlide) do not."""

Origin = tuple[int, int]


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


def without_areas(document: dict[str, Any]) -> dict[str, Any]:
    """A FeatureCollection of `to_geojson` of a slide whose resolution is not known: without areas."""
    features = []
    for item in document["features"]:
        properties = {key: value for key, value in item["properties"].items() if key != "area_um2"}
        measured = {key: value for key, value in properties["measurements"].items() if key != AREA_NAME}
        features.append({**item, "properties": {**properties, "measurements": measured}})
    return {**document, "features": features}


def from_origin(document: dict[str, Any], origin: Origin | None) -> dict[str, Any]:
    """A FeatureCollection of `to_geojson` counted from `origin`, which it then states; itself if that is (0, 0)."""
    if origin is None:
        return document
    features = [
        {**item, "geometry": {**item["geometry"], "coordinates": _moved(item["geometry"]["coordinates"], origin)}}
        for item in document["features"]
    ]
    return {"type": document["type"], _ORIGIN: list(origin), **document, "features": features}


def _moved(coordinates: Any, origin: Origin) -> Any:
    if isinstance(coordinates[0], float | int):
        return [round(coordinates[0] - origin[0], _DECIMALS), round(coordinates[1] - origin[1], _DECIMALS)]
    return [_moved(part, origin) for part in coordinates]


def origin_in(document: Any) -> Origin | None:
    """The level-0 pixel from which a document of `from_origin` counts; None if none is stated."""
    stated = document.get(_ORIGIN) if isinstance(document, Mapping) else None
    whole = isinstance(stated, list) and len(stated) == 2 and all(type(value) is int for value in stated)
    return (stated[0], stated[1]) if whole and stated else None


def origin_of_file(path: Path) -> Origin | None:
    """Like `origin_in`, from the first bytes of a file written here; None also if the file does not exist."""
    try:
        with path.open("rb") as file:
            found = _ORIGIN_IN_HEAD.search(file.read(_HEAD_BYTES))
    except OSError:
        return None
    return (int(found[1]), int(found[2])) if found else None


def is_of_qupath(document: Any) -> bool:
    """Whether any feature has QuPath's `properties` or its old ids (`PathAnnotationObject`)."""
    inner = document.get("features", [document]) if isinstance(document, Mapping) else document
    features = [item for item in inner if isinstance(item, Mapping)] if isinstance(inner, list) else []
    return any(
        (isinstance(properties := item.get("properties"), Mapping) and not _OF_QUPATH.isdisjoint(properties))
        or str(item.get("id")).startswith("Path")
        for item in features
    )


def from_geojson(document: Mapping[str, Any] | Sequence[Any]) -> list[Polygon]:
    """The polygons of a FeatureCollection, a Feature, a geometry, or a bare list of features, in their order.

    Multipolygons and collections are split into polygons; points, lines and heights (z) are left out. Raises
    UsageError for a document that is not GeoJSON, or holds a broken ring or a coordinate that is not a number.
    """
    polygons: list[Polygon] = []
    for number, geometry in enumerate(_geometries(document), start=1):
        try:
            with np.errstate(invalid="ignore"):  # refused below
                read = shapely.force_2d(shape(geometry))
            if not np.isfinite(shapely.get_coordinates(read)).all():
                raise ValueError("it has coordinates that are not numbers")
            polygons.extend(_polygons(read))
        except (ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
            raise UsageError(f"GeoJSON feature {number} has no readable geometry: {error}") from error
    return polygons


def enclosed_area(polygon: BaseGeometry) -> BaseGeometry:
    """The area that a polygon's outline encloses, valid even where the outline crosses itself."""
    if polygon.is_valid:
        return polygon
    return shapely.make_valid(polygon, method="structure", keep_collapsed=False)


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
