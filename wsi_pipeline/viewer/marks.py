"""Marks on slides: points and areas with classes, in one GeoJSON file per slide that QuPath can read and write.

annotations/<slide_id>.geojson   a FeatureCollection; `revision` counts the changes made here

Changes refer to features by id and are applied one by one under a lock, so that two windows never undo each other's
work: each gets the other's changes with its next answer. Every change replaces the whole file.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import LabelError, UsageError
from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps.class_areas import class_colours
from wsi_pipeline.stages.engine.qupath_origin import origin_in_run
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.system.locks import LockedError, locked
from wsi_pipeline.tissue.geojson import enclosed_area, is_of_qupath, origin_in

Json = dict[str, Any]

MOST_BYTES = 64 << 20
MOST_FEATURES = 50_000
MOST_CHANGES = 500
MOST_POINTS = 20_000
"""Points of one outline."""
MOST_NAME = 80
_LOCK_SECONDS = 10.0
_DECIMALS = 2
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
BRUSH = "brush_radius"
"""Property of a line that is to become the area a brush of this radius (level-0 pixels) paints along it."""


class Marks:
    """The marks of a run. For a slide with bounds, the file's origin is their corner, as in QuPath, and is recorded."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._counts: dict[str, tuple[int, int]] = {}

    def read(self, slide_id: str) -> Json:
        """`revision` and `features` in level-0 pixels. Also reads files written by QuPath. Raises LabelError."""
        return self._read(slide_id, self._origin(slide_id))

    def count(self, slide_id: str) -> int:
        """Number of marks on a slide; 0 also if the file cannot be read."""
        try:
            mark = self.run.annotation(slide_id).stat().st_mtime_ns
        except OSError:
            return 0
        known = self._counts.get(slide_id)
        if known is None or known[0] != mark:
            try:
                known = mark, len(self._read(slide_id, (0, 0))["features"])
            except LabelError:
                known = mark, 0
            self._counts[slide_id] = known
        return known[1]

    def change(self, slide_id: str, changes: Any, size: Size) -> Json:
        """Put and delete features, then return the same as `read`.

        changes   a list of {"op": "put", "feature": {...}} and {"op": "delete", "id": "..."}

        Raises UsageError for an invalid change, before any change is applied; LabelError if the file cannot be read
        or another process keeps it locked.
        """
        asked, origin = checked_changes(changes, size), self._origin(slide_id)
        try:
            with locked(self.run.lock("annotations", slide_id), _LOCK_SECONDS):
                document = self._read(slide_id, origin)
                features = {feature["id"]: feature for feature in document["features"]}
                for op, name, feature in asked:
                    if op == "delete":
                        features.pop(name, None)
                    else:
                        features[name] = feature
                if len(features) > MOST_FEATURES:
                    raise UsageError(f"a slide may have {MOST_FEATURES} marks, these would be {len(features)}")
                changed = {"revision": document["revision"] + 1, "features": list(features.values())}
                self._write(slide_id, changed, origin)
                return changed
        except LockedError:
            raise LabelError(f"another process is writing the marks of {slide_id}", todo="Try again") from None

    def _origin(self, slide_id: str) -> tuple[int, int]:
        return origin_in_run(self.run, slide_id, no_crop=False) or (0, 0)

    def _read(self, slide_id: str, origin: tuple[int, int]) -> Json:
        path = self.run.annotation(slide_id)
        try:
            if path.stat().st_size > MOST_BYTES:
                raise LabelError(f"{path.name} is larger than {MOST_BYTES >> 20} MB")
            document = json.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            return {"revision": 0, "features": []}
        except (OSError, ValueError, RecursionError) as error:
            raise LabelError(
                f"{path} is not GeoJSON ({error})", todo="Export it from QuPath again, or remove it"
            ) from None
        inner = document.get("features") if isinstance(document, Mapping) else document
        if not isinstance(inner, list):
            raise LabelError(f"{path} holds no features", todo="Export it from QuPath again, or remove it")
        stated = origin_in(document)
        shift = stated if stated is not None else origin if is_of_qupath(document) else (0, 0)
        features = [found for item in inner if (found := _as_mark(item, shift)) is not None]
        revision = document.get("revision") if isinstance(document, Mapping) else None
        # A file of another program has no revision, but must not look older than what a window has seen.
        known = revision if type(revision) is int and revision > 0 else 1_000_000 + path.stat().st_mtime_ns // 10**9
        return {"revision": known, "features": features}

    def _write(self, slide_id: str, document: Json, origin: tuple[int, int]) -> None:
        features = [_moved(feature, (-origin[0], -origin[1])) for feature in document["features"]]
        head: Json = {"type": "FeatureCollection"}
        if origin != (0, 0):
            head["level0_origin"] = list(origin)
        whole = {**head, "revision": document["revision"], "features": features}
        write_text(self.run.annotation(slide_id), json.dumps(whole, ensure_ascii=False) + "\n")


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= 255


def checked_changes(changes: Any, size: Size) -> list[tuple[str, str, Json]]:
    """(op, id, feature) of each change. Raises UsageError, naming the first invalid one."""
    if not isinstance(changes, list) or not 1 <= len(changes) <= MOST_CHANGES:
        raise UsageError(f"changes must be a list of 1 to {MOST_CHANGES}")
    found: list[tuple[str, str, Json]] = []
    for number, change in enumerate(changes, 1):
        op = change.get("op") if isinstance(change, Mapping) else None
        if op == "delete":
            found.append(("delete", _checked_id(change.get("id"), number), {}))
        elif op == "put":
            feature = checked_feature(change.get("feature"), size, number)
            found.append(("put", feature["id"], feature))
        else:
            raise UsageError(f"change {number}: op must be put or delete")
    return found


def checked_feature(feature: Any, size: Size, number: int = 1) -> Json:
    """A feature as stored: id, class and colour, a valid point or area within the slide. Raises UsageError."""
    if not isinstance(feature, Mapping):
        raise UsageError(f"change {number}: feature must be an object")
    properties = feature.get("properties")
    given = properties if isinstance(properties, Mapping) else {}
    geometry = _checked_geometry(feature.get("geometry"), given.get(BRUSH), size, number)
    classification = given.get("classification")
    name, colour = _checked_class(classification if isinstance(classification, Mapping) else {}, number)
    return {
        "type": "Feature",
        "id": _checked_id(feature.get("id"), number),
        "geometry": {"type": geometry["type"], "coordinates": _rounded(geometry["coordinates"])},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": colour}},
    }


def class_list(features: Sequence[Mapping[str, Any]], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Class -> colour (#rrggbb): the `known` ones, then those of the features in order of appearance."""
    found = dict(known or {})
    for feature in features:
        classification = (feature.get("properties") or {}).get("classification") or {}
        name, colour = classification.get("name"), classification.get("color")
        if isinstance(name, str) and name and name not in found:
            channels = colour if isinstance(colour, list) else []
            good = len(channels) == 3 and all(map(_is_byte, channels))
            found[name] = "#{:02x}{:02x}{:02x}".format(*channels) if good else next_colour(found)
    return found


def next_colour(found: Mapping[str, str]) -> str:
    """A colour that no class uses yet."""
    every = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in class_colours(len(found) + 1)]
    return next((colour for colour in every if colour not in found.values()), every[-1])


def _checked_id(value: Any, number: int) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise UsageError(f"change {number}: id must be 1 to 64 letters, digits or hyphens")
    return value


def _checked_class(classification: Mapping[str, Any], number: int) -> tuple[str, list[int]]:
    name, colour = classification.get("name"), classification.get("color")
    if not isinstance(name, str) or not name.strip() or len(name) > MOST_NAME or _CONTROL.search(name):
        raise UsageError(f"change {number}: a class has a name of 1 to {MOST_NAME} plain characters")
    is_colour = isinstance(colour, list) and len(colour) == 3
    if not is_colour or not all(type(value) is int and 0 <= value <= 255 for value in colour or ()):
        raise UsageError(f"change {number}: color must be three numbers from 0 to 255")
    return name.strip(), list(colour or ())


def _checked_geometry(geometry: Any, radius: Any, size: Size, number: int) -> dict[str, Any]:
    """A point, or the area of a polygon or brush stroke, clipped to the slide."""
    kinds = ("Point", "Polygon", "MultiPolygon", "LineString")
    if not isinstance(geometry, Mapping) or geometry.get("type") not in kinds:
        raise UsageError(f"change {number}: geometry must be one of {', '.join(kinds)}")
    try:
        with np.errstate(invalid="ignore"):
            drawn = shapely.force_2d(shape(geometry))
    except (ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError):
        raise UsageError(f"change {number}: geometry has no readable coordinates") from None
    points = shapely.get_coordinates(drawn)
    if not 1 <= len(points) <= MOST_POINTS or not np.isfinite(points).all() or np.abs(points).max() > 1e9:
        raise UsageError(f"change {number}: geometry must have 1 to {MOST_POINTS} points, all of them numbers")
    slide = shapely.box(0, 0, size.width, size.height)
    if isinstance(drawn, Point):
        if not slide.covers(drawn):
            raise UsageError(f"change {number}: the point is not on the slide")
        return dict(mapping(drawn))
    area = shapely.intersection(_area(drawn, radius, number), slide)
    return dict(mapping(_polygonal(area, number)))


def _area(drawn: BaseGeometry, radius: Any, number: int) -> BaseGeometry:
    if not isinstance(drawn, LineString):
        return enclosed_area(drawn)
    if not isinstance(radius, int | float) or isinstance(radius, bool) or not math.isfinite(radius) or not radius > 0:
        raise UsageError(f"change {number}: a line needs {BRUSH}, a number of pixels")
    stroke = drawn.simplify(radius / 8).buffer(float(radius), quad_segs=6)
    return stroke.simplify(radius / 20)


def _polygonal(area: BaseGeometry, number: int) -> BaseGeometry:
    parts = [part for part in getattr(area, "geoms", [area]) if isinstance(part, Polygon) and part.area > 0]
    if not parts:
        raise UsageError(f"change {number}: the area is empty or not on the slide")
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _as_mark(item: Any, shift: tuple[int, int]) -> Json | None:
    """A feature of a file in level-0 pixels, with an id; None unless it is a feature with a geometry."""
    if not isinstance(item, Mapping) or not isinstance(item.get("geometry"), Mapping):
        return None
    geometry = item["geometry"]
    if not isinstance(geometry.get("coordinates"), list):
        return None
    name = item.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        name = str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(geometry, sort_keys=True)))
    try:
        return _moved({**item, "type": "Feature", "id": name}, shift)
    except (TypeError, IndexError, RecursionError):
        return None


def _moved(feature: Json, shift: tuple[int, int]) -> Json:
    geometry = feature["geometry"]
    coordinates = _shifted(geometry["coordinates"], shift) if shift != (0, 0) else geometry["coordinates"]
    return {**feature, "geometry": {**geometry, "coordinates": coordinates}}


def _shifted(coordinates: Any, shift: tuple[int, int]) -> Any:
    if isinstance(coordinates[0], float | int):
        return [round(coordinates[0] + shift[0], _DECIMALS), round(coordinates[1] + shift[1], _DECIMALS)]
    return [_shifted(part, shift) for part in coordinates]


def _rounded(coordinates: Any) -> Any:
    if isinstance(coordinates, float | int):
        return round(float(coordinates), _DECIMALS)
    return [_rounded(part) for part in coordinates]
