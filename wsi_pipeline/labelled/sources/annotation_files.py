"""Annotation files: QuPath's GeoJSON and ASAP's XML, recognised by content. Bounded, and safe to parse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring
from shapely.errors import ShapelyError
from shapely.geometry import Polygon

from wsi_pipeline.errors import LabelError, UsageError
from wsi_pipeline.labelled.sources.regions import Annotation, Region
from wsi_pipeline.tissue.geojson import from_geojson, is_of_qupath, origin_in
from wsi_pipeline.tissue.own.plain_file import read_plain

ANNOTATION_SUFFIXES = (".geojson", ".json", ".xml", ".geojson.gz", ".json.gz", ".xml.gz")
"""Cells with these endings show that a column `annotation` names files."""

MAX_BYTES = 256 << 20
MAX_POINTS = 20_000_000
"""Annotations drawn by people or exported by pixel classifiers have fewer points."""

_MAX_COORDINATE = 1e9

_IGNORED = "*"
"""QuPath ignores classes whose names end so (`Ignore*`, `Region*`)."""

_CUT_OUT = "ignore*"
"""This class marks areas to exclude; `Region*` surrounds the whole annotated area."""

_ASAP_AREAS = {"polygon", "spline", "rectangle"}


def read_annotation(path: Path) -> Annotation:
    """The annotated regions of a file. Raises LabelError if it cannot be read, or is neither of the formats."""
    try:
        raw = read_plain(path, MAX_BYTES)
    except OSError as error:
        raise LabelError(f"annotation {path}: {error.strerror}") from None
    except UsageError as error:
        raise LabelError(f"annotation {path.name}: {error.what}") from None
    start = raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"<":
        return _of_asap(raw, path)
    if start in (b"{", b"["):
        return _of_qupath(raw, path)
    raise LabelError(f"annotation {path.name} is neither GeoJSON (QuPath) nor XML (ASAP)")


def _of_qupath(raw: bytes, path: Path) -> Annotation:
    """Annotations of a GeoJSON export; the class is `properties.classification`."""
    try:
        document = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise LabelError(f"annotation {path.name} is not valid JSON ({error})") from None
    found = _Found()
    for number, feature in enumerate(_features(document, path), start=1):
        given = feature.get("properties")
        properties = given if isinstance(given, Mapping) else {}
        if properties.get("objectType", "annotation") not in ("annotation", "tile"):
            found.skipped += 1
            continue
        try:
            polygons = from_geojson(feature)
        except UsageError as error:
            reason = error.what.partition(": ")[2] or error.what
            raise LabelError(f"annotation {path.name}: feature {number} has no readable geometry ({reason})") from None
        except RecursionError:
            raise LabelError(f"annotation {path.name}: feature {number} is nested too deeply") from None
        found.skipped += not polygons
        found.add(_class_of(properties.get("classification")), polygons, path)
    annotation, stated = found.annotation(), origin_in(document)
    if stated is not None:  # written by this program
        return annotation.moved(*stated)
    return replace(annotation, from_bounds=is_of_qupath(document))


def _features(document: Any, path: Path) -> list[Mapping[str, Any]]:
    if isinstance(document, Mapping):
        inner = document.get("features")
        document = inner if isinstance(inner, list) else [document]
    if not isinstance(document, list) or not all(isinstance(item, Mapping) for item in document):
        raise LabelError(
            f"annotation {path.name} is not GeoJSON", todo="Export it with File > Export objects as GeoJSON"
        )
    return document


def _class_of(classification: Any) -> str:
    """The class as QuPath displays it; empty for none. Derived classes come as a list of names in newer versions."""
    if isinstance(classification, Mapping):
        names = classification.get("names")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else classification.get("name")
    return classification.strip() if isinstance(classification, str) else ""


def _of_asap(raw: bytes, path: Path) -> Annotation:
    """Annotations of an ASAP file; the class is `PartOfGroup`. Splines are taken as polygons through their points."""
    try:
        root = fromstring(raw, forbid_dtd=True)
    except DefusedXmlException:
        raise LabelError(f"annotation {path.name} defines XML entities, which are not allowed") from None
    except (ParseError, ValueError, RecursionError) as error:
        raise LabelError(f"annotation {path.name} is not valid XML ({error})") from None
    if root.tag != "ASAP_Annotations":
        raise LabelError(f"annotation {path.name} is not XML of ASAP (its root element is {root.tag})")
    found = _Found()
    for number, item in enumerate(root.iter("Annotation"), start=1):
        group = (item.get("PartOfGroup") or "").strip()
        if (item.get("Type") or "").lower() not in _ASAP_AREAS:
            found.skipped += 1
            continue
        try:
            corners = [_corner(corner) for corner in item.iter("Coordinate")]
            ring = [(x, y) for _, x, y in sorted(corners, key=lambda corner: corner[0])]
            polygon = Polygon(ring)
        except (TypeError, ValueError, ShapelyError) as error:
            raise LabelError(f"annotation {path.name}: number {number} has no readable outline ({error})") from None
        found.add("" if group == "None" else group, [polygon], path)
    return found.annotation()


def _corner(item: Any) -> tuple[float, float, float]:
    """Order, x and y; some versions of ASAP wrote decimal commas."""
    order, x, y = (float(str(item.get(name)).replace(",", ".")) for name in ("Order", "X", "Y"))
    return order, x, y


class _Found:
    """Collects regions while a file is read."""

    def __init__(self) -> None:
        self.regions: list[Region] = []
        self.others: list[Polygon] = []
        self.ignored: list[Polygon] = []
        self.skipped = self.nameless = self.points = 0

    def add(self, name: str, polygons: list[Polygon], path: Path) -> None:
        """Add the polygons of one annotation; those without a class or with an ignored class are kept separately."""
        for polygon in polygons:
            corners = shapely.get_coordinates(polygon)
            self.points += len(corners)
            if not (np.abs(corners) < _MAX_COORDINATE).all():  # false for NaN
                raise LabelError(f"annotation {path.name} has coordinates that are not numbers")
            if self.points > MAX_POINTS:
                raise LabelError(f"annotation {path.name} has more than {MAX_POINTS:,} points")
            if name and not name.endswith(_IGNORED):
                self.regions.append(Region(name, polygon))
            else:
                self.others.append(polygon)
                self.nameless += not name
                if name.lower() == _CUT_OUT:
                    self.ignored.append(polygon)

    def annotation(self) -> Annotation:
        """The collected annotation."""
        left_out = {
            "annotated areas without a class, not used": self.nameless,
            "points, lines and detected objects, which are not areas": self.skipped,
        }
        return Annotation(tuple(self.regions), tuple(self.others), left_out, ignored=tuple(self.ignored))
