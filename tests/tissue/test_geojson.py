"""GeoJSON keeps outlines, and looks as QuPath wants it."""

from __future__ import annotations

import json
import uuid

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box

from wsi_pipeline.errors import UsageError
from wsi_pipeline.tissue.geojson import from_geojson, to_geojson

HOLED = Polygon(box(0, 0, 100, 80).exterior, [box(10, 10, 20, 20).exterior])
corners = st.integers(0, 100_000)


@given(st.lists(st.tuples(corners, corners, st.integers(1, 5000), st.integers(1, 5000)), max_size=5))
def test_round_trip_keeps_every_outline(rectangles):
    polygons = [box(x, y, x + w, y + h) for x, y, w, h in rectangles]
    back = from_geojson(json.loads(json.dumps(to_geojson(polygons, 0.5))))
    assert len(back) == len(polygons)
    assert all(a.equals(b) for a, b in zip(back, polygons, strict=True))


def test_round_trip_keeps_holes_and_takes_multipolygons_apart():
    both = MultiPolygon([HOLED, box(200, 200, 210, 210)])
    document = to_geojson([HOLED, both], 0.25)
    assert [feature["geometry"]["type"] for feature in document["features"]] == ["Polygon", "MultiPolygon"]
    back = from_geojson(json.loads(json.dumps(document)))
    assert [round(polygon.area) for polygon in back] == [7900, 7900, 100]
    assert back[0].equals(HOLED)


def test_a_feature_has_what_qupath_reads():
    document = to_geojson([HOLED], 0.5)
    assert document["type"] == "FeatureCollection"
    (feature,) = document["features"]
    assert feature["type"] == "Feature"
    assert uuid.UUID(feature["id"])
    properties = feature["properties"]
    assert properties["objectType"] == "annotation"
    assert properties["classification"]["name"] == "Tissue"
    assert len(properties["classification"]["color"]) == 3
    assert properties["isLocked"] is True
    assert properties["area_um2"] == properties["measurements"]["Area µm^2"] == 7900 / 4
    for ring in feature["geometry"]["coordinates"]:
        assert ring[0] == ring[-1]


def test_equal_tissue_gives_an_equal_file_and_other_tissue_other_ids():
    first, second = box(0, 0, 9, 9), box(0, 0, 9, 8)
    assert to_geojson([first], 0.5) == to_geojson([first], 0.5)
    ids = [feature["id"] for feature in to_geojson([first, second], 0.5)["features"]]
    assert len(set(ids)) == 2


@pytest.mark.parametrize("wrap", [
    lambda feature: feature, lambda feature: [feature], lambda feature: feature["geometry"],
    lambda feature: {"type": "GeometryCollection", "geometries": [feature["geometry"]]},
])  # fmt: skip
def test_what_other_tools_write_is_read_too(wrap):
    (feature,) = to_geojson([HOLED], 0.5)["features"]
    assert from_geojson(wrap(feature))[0].equals(HOLED)


def test_points_and_lines_and_empty_features_are_left_out():
    features = [{"type": "Feature", "geometry": shapely.geometry.mapping(shapely.Point(1, 2)), "properties": {}},
                {"type": "Feature", "geometry": None, "properties": {}}]  # fmt: skip
    assert from_geojson({"type": "FeatureCollection", "features": features}) == []


@pytest.mark.parametrize("document", [
    {"hello": 1}, "text", {"type": "FeatureCollection", "features": [{"type": "Polygon", "coordinates": [[[0, 0]]]}]},
    {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": "no"}}, 7,
    {"type": "Feature", "geometry": {"type": "Circle", "coordinates": [1, 2]}},
])  # fmt: skip
def test_what_is_no_geojson_is_refused(document):
    with pytest.raises(UsageError, match="GeoJSON"):
        from_geojson(document)


def test_the_roi_of_the_real_slide_is_read(data_dir):
    document = json.loads((data_dir / "annotations" / "metaplasia-HE_roi.geojson").read_text())
    (roi,) = from_geojson(document)
    assert roi.bounds == (6401, 8315, 7721, 9371)
