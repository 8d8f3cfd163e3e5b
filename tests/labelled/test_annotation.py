"""Annotation files of QuPath and ASAP: classes and outlines as drawn; hostile and broken files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import Polygon, box

from wsi_pipeline.errors import LabelError
from wsi_pipeline.geometry import Size
from wsi_pipeline.labelled.sources import annotation_files as module
from wsi_pipeline.labelled.sources.annotation_files import read_annotation
from wsi_pipeline.labelled.sources.regions import Region, class_areas

SIZE = Size(1000, 800)
SQUARE = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]


def feature(classification: Any, ring: list[list[float]] | None = None, kind: str = "annotation") -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [ring or SQUARE]}
    properties = {"objectType": kind, "classification": classification}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def geojson(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def asap(path: Path, annotations: str, head: str = "") -> Path:
    groups = '<Group Name="Tumor" PartOfGroup="None" Color="#64FE2E"><Attributes/></Group>'
    path.write_text(
        f'<?xml version="1.0"?>{head}<ASAP_Annotations><Annotations>{annotations}</Annotations>'
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )
    return path


def outline(group: str, ring: list[list[Any]], kind: str = "Polygon", turned: bool = False) -> str:
    points = [f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(ring)]
    if turned:
        points.reverse()
    inner = f"<Coordinates>{''.join(points)}</Coordinates>"
    return f'<Annotation Name="A" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">{inner}</Annotation>'


def test_qupath_classes(tmp_path: Path) -> None:
    features = [
        feature({"name": "Tumor", "color": [200, 0, 0]}),
        feature(None),
        feature({"names": ["Immune", "Positive"]}),
        feature({"name": "Ignore*"}),
        feature({"name": "Cell"}, kind="cell"),
    ]
    found = read_annotation(geojson(tmp_path / "a.geojson", *features))
    assert [region.name for region in found.regions] == ["Tumor", "Immune: Positive"]
    assert found.regions[0].polygon.equals(box(0, 0, 100, 100))
    assert len(found.others) == 2
    assert sorted(found.left_out.values()) == [1, 1]


def test_qupath_holes_and_multipolygons(tmp_path: Path) -> None:
    hole = [[20, 20], [40, 20], [40, 40], [20, 40], [20, 20]]
    far = [[[200, 200], [300, 200], [300, 300], [200, 300], [200, 200]]]
    item = feature({"name": "Tumor"})
    item["geometry"] = {"type": "MultiPolygon", "coordinates": [[SQUARE, hole], far]}
    areas = class_areas(read_annotation(geojson(tmp_path / "a.json", item)).regions, SIZE)
    assert areas["Tumor"].area == 100 * 100 - 20 * 20 + 100 * 100


def test_asap_classes_order_and_commas(tmp_path: Path) -> None:
    ring = [[0, 0], [100, 0], [100, 100], [0, 100]]
    parts = [
        outline("Tumor", ring),
        outline("Stroma", ring, turned=True).replace('X="100"', 'X="100,5"'),
        outline("None", ring, "Rectangle"),
        outline("Tumor", ring[:1], "Dot"),
        outline("Tumor", ring, "Spline"),
    ]
    found = read_annotation(asap(tmp_path / "a.xml", "".join(parts)))
    assert [region.name for region in found.regions] == ["Tumor", "Stroma", "Tumor"]
    assert found.regions[0].polygon.equals(box(0, 0, 100, 100))
    assert found.regions[1].polygon.equals(box(0, 0, 100.5, 100))
    assert len(found.others) == 1
    assert sorted(found.left_out.values()) == [1, 1]


def test_a_region_drawn_inside_another_class_counts_itself() -> None:
    regions = [
        Region("Tumor", box(0, 0, 100, 100)),
        Region("Necrosis", box(20, 20, 60, 60)),
        Region("Tumor", box(30, 30, 40, 40)),
        Region("Stroma", box(90, 0, 150, 50)),
        Region("Tumor", box(50, 70, 120, 90)),
    ]
    areas = class_areas(regions, SIZE)
    assert areas["Necrosis"].equals(box(20, 20, 60, 60).difference(box(30, 30, 40, 40)))
    tumour = box(0, 0, 100, 100).difference(box(20, 20, 60, 60)).union(box(30, 30, 40, 40)).union(box(50, 70, 120, 90))
    assert areas["Tumor"].equals(tumour)
    assert areas["Stroma"].intersection(areas["Tumor"]).area == 10 * 50, "overlap that is no nesting belongs to both"


def test_equal_outlines_of_two_classes_stay_with_both() -> None:
    areas = class_areas([Region("a", box(0, 0, 10, 10)), Region("b", box(0, 0, 10, 10))], SIZE)
    assert areas["a"].equals(areas["b"])
    assert areas["a"].area == 100


def test_crossing_outlines_are_made_valid_and_cut_to_the_slide() -> None:
    bow_tie = Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    assert not bow_tie.is_valid
    past, outside = box(900, 700, 2000, 2000), box(-50, -50, -1, -1)
    areas = class_areas([Region("a", bow_tie), Region("b", past), Region("c", outside)], SIZE)
    assert areas["a"].is_valid
    assert areas["a"].area == 5000
    assert areas["b"].area == 100 * 100
    assert areas["c"].is_empty


ENTITY = '<!DOCTYPE l [<!ENTITY a "one word">]>'
OUTSIDE = '<!DOCTYPE l [<!ENTITY a SYSTEM "words.txt">]>'


@pytest.mark.parametrize("head", [ENTITY, OUTSIDE, "<!DOCTYPE l>"])
def test_entities_are_refused(tmp_path: Path, head: str) -> None:
    with pytest.raises(LabelError, match="defines XML entities"):
        read_annotation(asap(tmp_path / "a.xml", "", head))


RING = '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], %s, [1, 1], [0, 0]]]}}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tumour here", "neither GeoJSON"),
        ("", "neither GeoJSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "not GeoJSON"),
        ("<ASAP_Annotations>", "not valid XML"),
        ("<Annotations MicronsPerPixel='0.5'></Annotations>", "its root element is Annotations"),
        (RING % "[1]", "feature 1 has no readable geometry"),
        (RING % "[1, NaN]", "not numbers"),
        (RING % "[1e12, 0]", "not numbers"),
        (RING % f"[1{'0' * 400}, 0]", "feature 1 has no readable geometry"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_broken_files_are_told_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(LabelError, match=words):
        read_annotation(tmp_path / "a.txt")


def test_asap_without_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="number 1 has no readable outline"):
        read_annotation(asap(tmp_path / "a.xml", outline("a", [["left", 0], [1, 1], [2, 2]])))  # type: ignore[list-item]


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = geojson(tmp_path / "a.geojson", feature({"name": "a"}))
    monkeypatch.setattr(module, "MAX_POINTS", 3)
    with pytest.raises(LabelError, match="more than 3 points"):
        read_annotation(path)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(LabelError, match="larger than the limit of 0 MB"):
        read_annotation(path)
    with pytest.raises(LabelError, match="No such file"):
        read_annotation(tmp_path / "gone.xml")


def test_points_and_lines_are_counted(tmp_path: Path) -> None:
    points = {"type": "MultiPoint", "coordinates": [[1, 1], [2, 2]]}
    line = {"type": "LineString", "coordinates": [[1, 1], [2, 2]]}
    drawn = [{**feature({"name": "Mitosis"}), "geometry": geometry} for geometry in (points, line, None)]
    found = read_annotation(geojson(tmp_path / "a.geojson", feature("Tumor"), *drawn))
    assert [region.name for region in found.regions] == ["Tumor"]
    assert {what: count for what, count in found.left_out.items() if "points, lines" in what and count == 3}


def test_only_ignored_areas_of_qupath_are_cut_out(tmp_path: Path) -> None:
    features = [feature({"name": name}) for name in ("Tumor", "Ignore*", "Region*", "ignore*")]
    found = read_annotation(geojson(tmp_path / "a.geojson", *features)).moved(5, 7)
    assert len(found.others) == 3
    assert [polygon.bounds for polygon in found.ignored] == [(5, 7, 105, 107)] * 2
