"""QuPath on our GeoJSON, and we on QuPath's: `python -m benchmarks.exchange.with_qupath EXPORTS JARS CHECKOUT`.

EXPORTS    the folder of make_exports
JARS       a folder with what qupath-core needs to compile: gson, slf4j-api and jts-core in the versions of its
           `gradle/libs.versions.toml`, and any guava, commons-math3, ij and picocli
CHECKOUT   QuPath's source. Java is that of JAVA_HOME, else of PATH; QuPath 0.7 needs 25

QuPathObjects.java is compiled beside QuPath's source, and runs QuPath's own `PathIO`, which QuPath calls when a file
is dragged onto a slide or objects are exported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import shape

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.geometry import Size
from wsi_pipeline.labelled.sources.annotation_files import read_annotation
from wsi_pipeline.report.maps.class_areas import class_areas, class_geojson
from wsi_pipeline.report.maps.heat import attention_geojson
from wsi_pipeline.slides.slide_info import Level, SlideInfo
from wsi_pipeline.tissue.geojson import from_origin
from wsi_pipeline.tissue.own.given import given_tissue
from wsi_pipeline.viewer.marks import Marks

Json = dict[str, Any]

SIZE, MPP, STRIDE, PATCH = Size(800, 600), 0.5, 40, 50
KINDS = {"annotation": "PathAnnotationObject", "tile": "PathTileObject"}


class QuPath:
    """QuPath's classes, compiled into `folder`."""

    def __init__(self, jars: Path, checkout: Path, folder: Path) -> None:
        home = os.environ.get("JAVA_HOME")
        self.java = f"{home}/bin/java" if home else "java"
        self.path = os.pathsep.join([str(folder), *map(str, sorted(jars.glob("*.jar")))])
        source = checkout / "qupath-core" / "src" / "main" / "java"
        command = [f"{self.java}c", "-nowarn", "-proc:none", "-implicit:class", "-encoding", "UTF-8"]
        command += ["-cp", self.path, "-sourcepath", str(source), "-d", str(folder)]
        subprocess.run([*command, str(Path(__file__).with_name("QuPathObjects.java"))], check=True)

    def __call__(self, *words: str | Path) -> list[Json]:
        """The objects that QuPathObjects prints."""
        command = [self.java, "-Dslf4j.internal.verbosity=ERROR", "-cp", self.path, "QuPathObjects", *map(str, words)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
        return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def make_outlines(folder: Path) -> list[Path]:
    """Outlines as `heatmap` and `classify` write them, with holes, one counted from the corner of a slide's bounds."""
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(10)), axis=-1).reshape(-1, 2)
    coords = (grid * STRIDE + 60).astype(np.int64)
    distance = np.hypot(*(grid - (5.5, 4.5)).T)
    heat = attention_geojson(coords, PATCH, np.exp(-((distance - 3) ** 2)) / len(coords), SIZE, MPP)
    chances = np.stack([distance < 2, (distance >= 2) & (distance < 4), distance >= 4], axis=1).astype(np.float32)
    classes = class_geojson(class_areas(coords, PATCH, chances, SIZE), ["gland", "muscle", "fat"], MPP)
    documents = {"heatmap": heat, "classify": classes, "bounds": from_origin(classes, (30, 20))}
    paths = [folder / f"{name}.geojson" for name in documents]
    for path, document in zip(paths, documents.values(), strict=True):
        path.write_text(json.dumps(document))
    return paths


def make_marks(run: RunDir, slide: str) -> Path:
    """Marks as the viewer keeps them: an area, an area with a hole, two parts, a brush stroke and a point."""
    ring = shapely.box(300, 60, 420, 180).difference(shapely.box(330, 90, 390, 150))
    two = shapely.union(shapely.box(450, 60, 480, 90), shapely.box(500, 60, 530, 90))
    drawn = {
        "11111111-1111-4111-8111-111111111111": (shapely.box(60, 60, 200, 180), {}),
        "22222222-2222-4222-8222-222222222222": (ring, {}),
        "33333333-3333-4333-8333-333333333333": (two, {}),
        "44444444-4444-4444-8444-444444444444": (shapely.LineString([(60, 300), (200, 340)]), {"brush_radius": 20}),
        "55555555-5555-4555-8555-555555555555": (shapely.Point(300, 300), {}),
    }
    classification = {"name": "marked", "color": [200, 30, 60]}
    changes = [
        {"op": "put", "feature": {"type": "Feature", "id": name, "geometry": shapely.geometry.mapping(geometry),
                                  "properties": {"classification": classification, **more}}}
        for name, (geometry, more) in drawn.items()
    ]  # fmt: skip
    Marks(run).change(slide, changes, Size(640, 480))
    return run.annotation(slide)


def check_read(paths: Sequence[Path], objects: Sequence[Json]) -> str:
    """QuPath's objects are the features of our files, in order: id, type, class, colour, lock, numbers and outline."""
    features = [(str(path), feature) for path in paths for feature in json.loads(path.read_text())["features"]]
    assert len(features) == len(objects)
    for (file, feature), found in zip(features, objects, strict=True):
        given = feature["properties"]
        of = given.get("classification", {})
        assert (found["file"], found["id"], found["kind"]) == (file, feature["id"], KINDS[given["objectType"]])
        assert (found.get("name"), found.get("class")) == (given.get("name"), of.get("name"))
        assert found.get("colour") == of.get("color")
        assert found["locked"] == given.get("isLocked", False)
        numbers, seen = given.get("measurements", {}), found["measurements"]
        assert list(seen) == list(numbers)  # QuPath holds those of tiles as float32
        assert np.array_equal(np.float32(list(seen.values())), np.float32(list(numbers.values())))
        outline, its = shape(feature["geometry"]), shapely.from_wkt(found["wkt"])
        assert outline.normalize().equals_exact(its.normalize(), 0.005) or outline.equals(its), (file, outline, its)
        assert abs(found["area"] - outline.area) <= 1e-6 * max(outline.area, 1)
    kinds = dict(Counter(found["kind"] for found in objects))
    classes = {found.get("class") for found in objects} - {None}
    shapes = [shapely.from_wkt(found["wkt"]) for found in objects]
    holes = sum(int(shapely.get_num_interior_rings(part)) > 0 for part in shapely.get_parts(shapes))
    return f"{len(paths)} files: {kinds}, classes {sorted(classes)}, {holes} polygons with holes"


def polygons_of(objects: Sequence[Json]) -> list[tuple[str, Any]]:
    """Class and polygon of all areas that QuPath printed as annotations, multipolygons split."""
    areas = [(o.get("class") or "", shapely.from_wkt(o["wkt"])) for o in objects if o["kind"] == KINDS["annotation"]]
    return [(name, part) for name, area in areas for part in shapely.get_parts(area) if part.area > 0]


def check_drawn(path: Path, objects: Sequence[Json]) -> int:
    """Classes, polygons and tissue read from a file of QuPath are those QuPath had; returns the number of polygons."""
    found, had = read_annotation(path), polygons_of(objects)
    classed = [(name, polygon) for name, polygon in had if name and not name.endswith("*")]
    rest = [polygon for name, polygon in had if not name or name.endswith("*")]
    assert [region.name for region in found.regions] == [name for name, _ in classed]
    ours, theirs = [*(r.polygon for r in found.regions), *found.others], [*(p for _, p in classed), *rest]
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.normalize().equals_exact(its.normalize(), 0.0051), (path, mine, its)
    assert len(found.ignored) == sum(name == "Ignore*" for name, _ in had)
    info = SlideInfo((Level(SIZE, 1.0),), MPP, None, "test", "test")
    picture = np.full((60, 80, 3), 120, np.uint8)
    mask = given_tissue(path, info, MPP, MPP, picture).mask
    tissue = shapely.union_all([polygon for name, polygon in had if not name.endswith("*")])
    assert abs(mask.pixels.sum() - tissue.area) < 0.02 * tissue.area, (path, mask.pixels.sum(), tissue.area)
    return len(ours)


def check(exports: Path, jars: Path, checkout: Path) -> None:
    """Both directions, and QuPath's copies of our files."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "classes").mkdir()
        qupath = QuPath(jars, checkout, folder / "classes")
        run = RunDir(exports / "wsi-run")
        exported = sorted((exports / "qupath").glob("*.geojson"))
        for what, paths in (
            ("export", exported), ("heatmap, classify", make_outlines(folder)), ("view", [make_marks(run, "s1")])
        ):  # fmt: skip
            print(f"{what}: QuPath reads {check_read(paths, qupath('read', *paths))}")
        drawn = qupath("draw", folder)
        for name in ("collection.geojson", "list.geojson", "packed.geojson.gz", "single.geojson"):
            read = check_drawn(folder / name, drawn[:1] if "single" in name else drawn)
            print(f"{name} of QuPath: {read} polygons read")
        for path in (folder / "heatmap.geojson", folder / "classify.geojson", run.annotation("s1")):
            qupath("copy", path, folder / "copy.geojson")
            again = check_drawn(folder / "copy.geojson", qupath("read", path))
            print(f"{path.name}: {again} polygons equal after reading and writing by QuPath")


if __name__ == "__main__":
    check(*(Path(word) for word in sys.argv[1:4]))
