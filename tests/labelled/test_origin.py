"""Outlines of slides with bounds: QuPath counts from the corner of the bounds, ASAP and others from level-0 (0, 0).

The oracle is where the drawn tissue lies on the slide: outlines over it must give patches full of it.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.affinity import translate
from shapely.geometry import Polygon, box, mapping

from tests.labelled.images import write_table
from tests.slide_bounds import write_scn, write_tiff_with_gaps
from tests.slide_files import tissue_like, write_generic_tiff
from wsi_pipeline.cli import main
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.labelled.open_labelled import open_labelled
from wsi_pipeline.labelled.sources.annotation_files import read_annotation
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.stages.engine.qupath_origin import qupath_origin
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.tissue.geojson import from_geojson

CORNER, SIZE = (1536, 768), (4096, 2560)
LEFT, RIGHT = box(128, 128, 448, 640), box(576, 128, 896, 640)
SPEC = LabelSpec(patch_px=64, mpp=0.5)
HEADER = ("slide_id", "path", "patient_id", "annotation")


def scn(path: Path, seed: int = 0) -> Path:
    return write_scn(path, tissue_like(1024, 768, seed), CORNER, SIZE)


def qupath(path: Path, left: Polygon = LEFT, right: Polygon = RIGHT, **more: Any) -> Path:
    features = [
        {"type": "Feature", "geometry": mapping(polygon),
         "properties": {"objectType": "annotation", "classification": {"name": name}}}
        for name, polygon in (("Tumor", left), ("Stroma", right))
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", **more, "features": features}))
    return path


def asap(path: Path, left: Polygon, right: Polygon) -> Path:
    def one(name: str, polygon: Polygon) -> str:
        points = "".join(
            f'<Coordinate Order="{k}" X="{x}" Y="{y}"/>' for k, (x, y) in enumerate(polygon.exterior.coords[:-1])
        )
        coordinates = f"<Coordinates>{points}</Coordinates>"
        return f'<Annotation Name="a" Type="Polygon" PartOfGroup="{name}">{coordinates}</Annotation>'

    both = one("Tumor", left) + one("Stroma", right)
    path.write_text(f"<ASAP_Annotations><Annotations>{both}</Annotations></ASAP_Annotations>")
    return path


def manifest(folder: Path, slide: Path, annotation: Path) -> Path:
    return write_table(folder / "m.csv", HEADER, [("s", slide.name, "p", annotation.name)])


def corners(table: Path, **options: Any) -> dict[str, list[tuple[int, int]]]:
    """Level-0 corners of the labelled patches by class."""
    patches = open_labelled(table, SPEC, **options)
    found: dict[str, list[tuple[int, int]]] = {}
    for name, label in zip(patches.names, patches.labels.tolist(), strict=True):
        x, y = name.partition(" ")[2].strip("()").split(", ")
        found.setdefault(patches.classes[label], []).append((int(x), int(y)))
    return found


def inside(polygon: Polygon, patch: int = 64, least: float = 0.75) -> set[tuple[int, int]]:
    """By definition: the corners on the grid whose patch lies in the polygon to at least this part."""
    right, bottom = (int(value) for value in polygon.bounds[2:])
    grid = [(x, y) for x in range(0, right + patch, patch) for y in range(0, bottom + patch, patch)]
    return {
        (x, y) for x, y in grid if box(x, y, x + patch, y + patch).intersection(polygon).area >= least * patch**2 - 1e-6
    }


def test_openslide_bounds_are_in_the_info(tmp_path: Path) -> None:
    with open_slide(scn(tmp_path / "a.scn")) as slide:
        assert slide.info.origin == CORNER
        assert (slide.info.bounds.width, slide.info.bounds.height) == (1024, 768)
    with open_slide(write_tiff_with_gaps(tmp_path / "b.tif", tissue_like(1024, 768), 2, 3)) as slide:
        assert slide.info.origin == (3 * 128, 2 * 128)


@pytest.mark.parametrize("kind", ["scn", "gaps"])
def test_qupath_outlines_count_from_the_bounds(tmp_path: Path, kind: str) -> None:
    if kind == "scn":
        slide, (x, y) = scn(tmp_path / "s.scn"), CORNER
    else:
        slide, (x, y) = write_tiff_with_gaps(tmp_path / "s.tif", tissue_like(2048, 1536), 2, 3), (384, 256)
    found = corners(manifest(tmp_path, slide, qupath(tmp_path / "s.geojson")))
    assert set(found["Tumor"]) == inside(translate(LEFT, x, y))
    assert set(found["Stroma"]) == inside(translate(RIGHT, x, y))


def test_the_pixels_are_those_under_the_outline(tmp_path: Path) -> None:
    patches = open_labelled(manifest(tmp_path, scn(tmp_path / "s.scn"), qupath(tmp_path / "s.geojson")), SPEC)
    pixels = patches.read(np.arange(len(patches)))
    assert pixels.reshape(len(pixels), -1).mean(1).max() < 200  # glass is white
    assert not [note for note in patches.notes if "hold no tissue" in note]


def test_no_crop_counts_from_the_corner_of_the_slide_and_bare_glass_is_told(tmp_path: Path) -> None:
    table = manifest(tmp_path, scn(tmp_path / "s.scn"), qupath(tmp_path / "s.geojson"))
    found = corners(table, no_crop=True)
    assert set(found["Tumor"]) == inside(LEFT)
    patches = open_labelled(table, SPEC, no_crop=True)
    (note,) = [note for note in patches.notes if "hold no tissue" in note]
    assert note.startswith(f"{len(patches)} of {len(patches)} labelled patches hold no tissue (s)")


def test_other_tools_count_from_level_0(tmp_path: Path) -> None:
    """ASAP draws on the whole slide of OpenSlide; so do bare GeoJSON files without anything of QuPath."""
    slide = scn(tmp_path / "s.scn")
    moved = translate(LEFT, *CORNER), translate(RIGHT, *CORNER)
    found = corners(manifest(tmp_path, slide, asap(tmp_path / "s.xml", *moved)))
    assert set(found["Tumor"]) == inside(moved[0])


def test_a_file_that_states_its_origin_is_believed(tmp_path: Path) -> None:
    slide = scn(tmp_path / "s.scn")
    moved = translate(LEFT, *CORNER), translate(RIGHT, *CORNER)
    stated = qupath(tmp_path / "s.geojson", *moved, level0_origin=[0, 0])
    assert set(corners(manifest(tmp_path, slide, stated))["Tumor"]) == inside(moved[0])
    assert set(corners(manifest(tmp_path, slide, stated), no_crop=True)["Tumor"]) == inside(moved[0])


def test_packed_annotations_are_read(tmp_path: Path) -> None:
    plain = qupath(tmp_path / "s.geojson")
    packed = tmp_path / "s.geojson.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_annotation(packed) == read_annotation(plain)
    assert corners(manifest(tmp_path, scn(tmp_path / "s.scn"), packed))


@pytest.mark.parametrize("options", [(), ("--qupath-no-crop",)])
def test_contours_are_written_where_qupath_shows_them(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Moved back by the corner that QuPath counts from, they enclose the mask; read back here, they do too."""
    slide, run = scn(tmp_path / "s.scn"), tmp_path / "run"
    assert main(["segment", str(slide), "--run", str(run), "--workers", "0", "--quiet", *options]) == 0
    path, segment = run / "segment" / "s.geojson", read_segment_table(run / "segment" / "s.h5")
    x, y = (0, 0) if options else CORNER
    document = json.loads(path.read_text())
    assert document["level0_origin"] == [x, y]
    outlines = [translate(polygon, x, y) for polygon in from_geojson(document)]
    mask = segment.mask
    assert sum(polygon.area for polygon in outlines) == pytest.approx(mask.fraction * SIZE[0] * SIZE[1], rel=0.05)
    scanned = box(*CORNER, CORNER[0] + 1024, CORNER[1] + 768)
    assert all(scanned.buffer(16).covers(polygon) for polygon in outlines)
    own = read_annotation(path)
    assert not own.from_bounds
    assert own.regions[0].polygon.equals(outlines[0])


def test_contours_of_old_runs_are_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run from before bounds were known holds contours that count from level-0 (0, 0); its masks stay as they are."""
    slide, run = scn(tmp_path / "s.scn"), tmp_path / "run"
    words = ["segment", str(slide), "--run", str(run), "--workers", "0"]
    assert main(words) == 0
    contours = run / "segment" / "s.geojson"
    placed, digest = contours.read_text(), read_segment_table(run / "segment" / "s.h5").header.digest
    assert main(words) == 0
    assert "1 up to date" in capsys.readouterr().out
    assert main([*words, "--qupath-no-crop"]) == 0
    assert contours.read_text() != placed
    assert main(words) == 0
    assert "another origin than QuPath" in capsys.readouterr().out
    assert contours.read_text() == placed
    assert read_segment_table(run / "segment" / "s.h5").header.digest == digest


def test_contours_of_runs_from_before_bounds_were_known_are_written_again(tmp_path: Path) -> None:
    slide, run = scn(tmp_path / "s.scn"), tmp_path / "run"
    words = ["segment", str(slide), "--run", str(run), "--workers", "0", "--quiet"]
    assert main(words) == 0
    contours = run / "segment" / "s.geojson"
    placed = contours.read_text()
    document = json.loads(placed)
    del document["level0_origin"]
    contours.write_text(json.dumps(document))
    assert main(words) == 0
    assert contours.read_text() == placed


def test_slides_without_bounds_have_one_corner(tmp_path: Path) -> None:
    run, words = tmp_path / "run", ["--workers", "0", "--quiet"]
    write_generic_tiff(tmp_path / "plain.tif", tissue_like(1024, 768), mpp=0.5)
    for slide in (scn(tmp_path / "s.scn"), tmp_path / "plain.tif"):
        assert main(["segment", str(slide), "--run", str(run), *words]) == 0
    bounded, plain = (read_segment_table(run / "segment" / f"{name}.h5").header for name in ("s", "plain"))
    assert (qupath_origin(bounded, False), qupath_origin(bounded, True)) == (CORNER, (0, 0))
    assert (qupath_origin(plain, False), qupath_origin(plain, True)) == (None, None)


def test_check_tells_annotations_on_bare_glass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = manifest(tmp_path, scn(tmp_path / "s.scn"), qupath(tmp_path / "s.geojson"))
    words = ["check", str(table), "--run", str(tmp_path / "none"), "--csv", str(tmp_path / "c.csv")]
    assert main(words) == 0
    assert "hold no tissue" not in (tmp_path / "c.csv").read_text()
    assert main([*words, "--qupath-no-crop"]) == 0
    assert "labelled patches hold no tissue" in (tmp_path / "c.csv").read_text()
