"""Masks and outlines of the user's own take the place of a detector; what does not fit the slide is refused by name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapely.affinity import translate
from shapely.geometry import GeometryCollection, MultiPolygon, Point, Polygon, box, mapping

from tests.labelled.images import write_table
from tests.slide_bounds import write_scn
from tests.slide_files import tissue_like, write_generic_tiff, write_pyramid_tiff
from wsi_pipeline.cli import main
from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.slide import Level, SlideInfo
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.tissue.own.given import given_tissue

INFO = SlideInfo((Level(Size(1024, 768), 1.0),), 0.5, None, "test", "test")
DENSE = tissue_like(512, 384)
HOLED = Polygon(box(128, 128, 640, 512).exterior, [box(256, 256, 384, 384).exterior])
FAR = box(704, 576, 896, 704)


def mask_of(path: Path, info: SlideInfo = INFO, mask_mpp: float = 1.0, **options: Any) -> TissueMask:
    return given_tissue(path, info, 0.5, mask_mpp, DENSE, **options).mask


def area(mask: TissueMask) -> float:
    return mask.fraction * mask.slide_size.pixels


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": mapping(geometry), "properties": properties}


DOCUMENTS: dict[str, Any] = {
    "FeatureCollection": {"type": "FeatureCollection", "features": [feature(HOLED), feature(FAR)]},
    "list": [feature(HOLED), feature(FAR)],
    "one Feature": feature(MultiPolygon([HOLED, FAR])),
    "geometry": mapping(MultiPolygon([HOLED, FAR])),
    "GeometryCollection": mapping(GeometryCollection([HOLED, FAR, Point(3, 3)])),
    "in a feature": feature(GeometryCollection([HOLED, Point(3, 3), FAR])),
    "overlapping": [feature(HOLED), feature(FAR), feature(box(128, 128, 200, 512))],
    "TRIDENT": {
        "type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}},
        "features": [feature(HOLED, tissue_id=0), feature(FAR, tissue_id=1)],
    },
    "QuPath": {
        "type": "FeatureCollection",
        "features": [
            feature(HOLED, objectType="annotation", classification={"name": "Tissue"}),
            feature(FAR, objectType="annotation"),
            feature(box(0, 0, 60, 60), objectType="detection"),
            feature(box(0, 700, 60, 760), objectType="annotation", classification={"name": "Ignore*"}),
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_outlines_of_every_form(tmp_path: Path, kind: str) -> None:
    mask = mask_of(write(tmp_path / "t.geojson", DOCUMENTS[kind]))
    assert mask.pixels.shape == (384, 512)
    expected = np.zeros((384, 512), bool)  # mask pixels are two slide pixels wide; the corners lie on their edges
    expected[64:256, 64:320] = True
    expected[128:192, 128:192] = False
    expected[288:352, 352:448] = True
    np.testing.assert_array_equal(mask.pixels, expected)


def test_packed_outlines_and_a_byte_order_mark(tmp_path: Path) -> None:
    plain = mask_of(write(tmp_path / "t.geojson", DOCUMENTS["list"]))
    packed = tmp_path / "t.geojson.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(DOCUMENTS["list"]).encode()))
    np.testing.assert_array_equal(mask_of(packed).pixels, plain.pixels)


def test_slanted_outlines_keep_their_area(tmp_path: Path) -> None:
    shape = Point(500, 400).buffer(250)
    assert area(mask_of(write(tmp_path / "t.json", [feature(shape)]))) == pytest.approx(shape.area, rel=0.005)


@pytest.mark.parametrize(
    ("properties", "no_crop", "moved"),
    [({"objectType": "annotation"}, False, True), ({"objectType": "annotation"}, True, False), ({}, False, False)],
)
def test_qupath_counts_from_the_bounds(tmp_path: Path, properties: dict[str, str], no_crop: bool, moved: bool) -> None:
    info = replace(INFO, bounds=Box(256, 128, 700, 600))
    path = write(tmp_path / "t.geojson", [feature(box(0, 0, 128, 64), **properties)])
    found = mask_of(path, info, no_crop=no_crop)
    rows, columns = np.nonzero(found.pixels)
    assert (columns.min() * 2, rows.min() * 2) == ((256, 128) if moved else (0, 0))


def picture(kind: str) -> Image.Image:
    marked = np.zeros((96, 128), np.uint8)
    marked[16:64, 16:80] = 1
    grey = Image.fromarray(marked * 255)
    rgba = np.zeros((96, 128, 4), np.uint8)
    rgba[marked > 0] = (200, 30, 30, 120)
    ink = np.zeros((96, 128, 4), np.uint8)
    ink[marked > 0] = (0, 0, 0, 255)
    palette = Image.fromarray(marked, "P")
    palette.putpalette([0, 0, 0, 10, 200, 10] + [0] * 750)
    opaque = np.dstack([marked * 255] * 3 + [np.full_like(marked, 255)])
    labels = marked * 3
    labels[20:30, 20:30] = 7
    return {
        "1": grey.convert("1"), "L": grey, "0 and 1": Image.fromarray(marked), "labels": Image.fromarray(labels),
        "16": Image.fromarray(marked.astype(np.uint16) * 65535), "RGB": grey.convert("RGB"), "P": palette,
        "RGBA clear": Image.fromarray(rgba), "RGBA opaque": Image.fromarray(opaque), "black ink": Image.fromarray(ink),
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["1", "L", "0 and 1", "labels", "16", "RGB", "P", "RGBA clear", "RGBA opaque", "black ink"]
)
def test_masks_of_every_mode(tmp_path: Path, kind: str) -> None:
    picture(kind).save(tmp_path / "m.png")
    mask = mask_of(tmp_path / "m.png")
    assert (mask.scale_x, mask.scale_y) == (8, 8)
    expected = np.zeros((96, 128), bool)
    expected[16:64, 16:80] = True
    np.testing.assert_array_equal(mask.pixels, expected)


def test_a_mask_with_soft_edges_is_cut_in_the_middle(tmp_path: Path) -> None:
    large = Image.fromarray(np.kron(np.asarray(picture("L")), np.ones((8, 8), np.uint8)))
    large.resize((257, 193), Image.Resampling.BILINEAR).save(tmp_path / "m.jpg", quality=90)
    assert area(mask_of(tmp_path / "m.jpg")) == pytest.approx(48 * 64 * 64, rel=0.02)


def test_a_fine_mask_is_shrunk_to_the_mask_s_resolution(tmp_path: Path) -> None:
    Image.fromarray(np.kron(np.asarray(picture("L")), np.ones((8, 8), np.uint8))).save(tmp_path / "m.png")
    mask = mask_of(tmp_path / "m.png", mask_mpp=4.0)
    assert mask.pixels.shape == (96, 128)
    assert area(mask) == 48 * 64 * 64


@pytest.mark.parametrize("size", [(128, 96), (127, 96), (128, 95), (37, 27), (37, 28), (1024, 768)])
def test_rounded_sizes_fit(tmp_path: Path, size: tuple[int, int]) -> None:
    picture("L").resize(size, Image.Resampling.NEAREST).save(tmp_path / "m.png")
    assert area(mask_of(tmp_path / "m.png")) == pytest.approx(48 * 64 * 64, rel=0.1)


def test_a_mask_of_the_bounds_is_laid_there(tmp_path: Path) -> None:
    info = replace(INFO, bounds=Box(256, 128, 512, 512))
    marked = np.zeros((64, 64), np.uint8)
    marked[:8, :16] = 255
    Image.fromarray(marked).save(tmp_path / "m.png")
    mask = mask_of(tmp_path / "m.png", info)
    rows, columns = np.nonzero(mask.pixels)
    assert (columns.min() * mask.scale_x, rows.min() * mask.scale_y) == (256, 128)
    assert area(mask) == 8 * 16 * 64
    with pytest.raises(SlideError, match=r"m\.png is 64 x 64"):
        mask_of(tmp_path / "m.png", info, no_crop=True)


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another shape": (lambda folder: _saved(folder, np.zeros((96, 96), np.uint8)), r"t\.png is 96 x 96, not a smaller"),
    "turned": (lambda folder: _saved(folder, np.zeros((128, 96), np.uint8)), "rotated by 90 degrees"),
    "larger": (lambda folder: _saved(folder, np.zeros((1536, 2048), np.uint8)), r"2048 x 1536, not a smaller"),
    "photograph": (lambda folder: _saved(folder, tissue_like(128, 96)), "not a mask"),
    "no black": (lambda folder: _saved(folder, np.full((96, 128), 2, np.uint8), 1), "has no black background"),
    "off": (
        lambda folder: write(folder / "t.geojson", [feature(box(5000, 10, 6000, 90))]),
        "lie outside the slide: x 5000",
    ),
    "mostly off": (
        lambda folder: write(folder / "t.geojson", [feature(box(900, 0, 2000, 700))]),
        "lie outside the slide",
    ),
    "points": (lambda folder: write(folder / "t.geojson", [feature(Point(3, 3))]), "contains no area"),
    "empty": (lambda folder: write(folder / "t.geojson", {"type": "FeatureCollection", "features": []}), "no area"),
    "no GeoJSON": (lambda folder: write(folder / "t.json", {"a": 1}), "is not a readable GeoJSON"),
    "cut": (lambda folder: _text(folder, '{"type": "Feature"'), "is not a readable GeoJSON"),
    "text": (lambda folder: _text(folder, "tissue"), "neither GeoJSON nor a picture"),
    "missing": (lambda folder: folder / "gone.png", "No such file"),
    "bad gzip": (lambda folder: _text(folder, "\x1f"), "neither GeoJSON nor a picture"),
}


def _saved(folder: Path, pixels: np.ndarray, corner: int = 0) -> Path:
    if corner:
        pixels[0, 0] = corner
    Image.fromarray(pixels).save(folder / "t.png")
    return folder / "t.png"


def _text(folder: Path, text: str) -> Path:
    (folder / "t.geojson").write_text(text)
    return folder / "t.geojson"


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    make, what = REFUSED[case]
    with pytest.raises(SlideError, match=what) as caught:
        mask_of(make(tmp_path))
    assert caught.value.todo


def test_an_outline_partly_off_the_slide_and_a_mask_on_glass_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "t.geojson", [feature(box(512, 0, 1100, 700))])
    assert given_tissue(path, INFO, 0.5, 1.0, DENSE).warning == "13% of the outlines of t.geojson lie outside the slide"
    glass = np.full((768, 1024, 3), 243, np.uint8)
    glass[:384] = tissue_like(1024, 384)
    inverted = np.zeros((96, 128), np.uint8)
    inverted[60:] = 255
    Image.fromarray(inverted).save(tmp_path / "m.png")
    assert "it may be inverted" in given_tissue(tmp_path / "m.png", INFO, 0.5, 1.0, glass).warning
    Image.fromarray(255 - inverted).save(tmp_path / "m.png")
    assert given_tissue(tmp_path / "m.png", INFO, 0.5, 1.0, glass).warning == ""


# Through the command


def tile(folder: Path, *words: str) -> int:
    return main(
        ["tile", str(folder / "m.csv"), "--run", str(folder / "run"), "--workers", "0", "--patch-px", "64", *words]
    )


def corners(folder: Path, slide: str = "s") -> set[tuple[int, int]]:
    return {(x, y) for x, y in read_patch_table(folder / "run" / "tile" / f"{slide}.h5").grid.coords.tolist()}


def test_the_column_tissue_takes_the_place_of_detection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pyramid_tiff(tmp_path / "s.svs", tissue_like(1024, 768), mpp=0.5)
    write(tmp_path / "t.geojson", [feature(box(256, 128, 512, 320))])
    write_table(tmp_path / "m.csv", ("path", "tissue"), [("s.svs", "t.geojson")])
    assert tile(tmp_path, "--mask-mpp", "2") == 0
    assert corners(tmp_path) == {(x, y) for x in range(256, 512, 64) for y in range(128, 320, 64)}
    assert read_segment_table(tmp_path / "run/segment/s.h5").header.extra["tissue"] == "t.geojson"
    capsys.readouterr()
    assert tile(tmp_path, "--mask-mpp", "2") == 0
    assert "1 up to date" in capsys.readouterr().out
    write(tmp_path / "t.geojson", [feature(box(256, 128, 320, 192))])  # drawn again: made again
    assert tile(tmp_path, "--mask-mpp", "2") == 0
    assert corners(tmp_path) == {(256, 128)}
    write_table(tmp_path / "m.csv", ("path",), [("s.svs",)])
    assert tile(tmp_path, "--mask-mpp", "2") == 0
    assert len(corners(tmp_path)) > 50


def test_contours_written_here_give_the_same_patches_again(tmp_path: Path) -> None:
    write_scn(tmp_path / "s.scn", tissue_like(1024, 768), (1536, 768), (4096, 2560))
    write_table(tmp_path / "m.csv", ("path",), [("s.scn",)])
    assert tile(tmp_path) == 0
    found = corners(tmp_path)
    (tmp_path / "own.geojson").write_bytes((tmp_path / "run/segment/s.geojson").read_bytes())
    write_table(tmp_path / "m.csv", ("path", "tissue"), [("s.scn", "own.geojson")])
    assert tile(tmp_path) == 0
    assert len(corners(tmp_path) ^ found) <= 0.02 * len(found)


def test_a_tissue_file_that_does_not_fit_fails_its_slide_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for k, name in enumerate(("t.png", "gone.png", "")):
        write_pyramid_tiff(tmp_path / f"s{k}.svs", tissue_like(1024, 768, k), mpp=0.5)
        rows.append((f"s{k}.svs", name))
    _saved(tmp_path, np.zeros((90, 90), np.uint8))
    write_table(tmp_path / "m.csv", ("path", "tissue"), rows)
    assert tile(tmp_path) == 3
    out = capsys.readouterr().out
    assert "FAILED tissue mask t.png is 90 x 90" in out
    assert "gone.png" in out
    assert len(corners(tmp_path, "s2")) > 50
    assert main(["check", str(tmp_path / "m.csv"), "--run", str(tmp_path / "none")]) == 3
    assert "FAILED tissue mask t.png is 90 x 90" in capsys.readouterr().out


def test_method_none_takes_everything(tmp_path: Path) -> None:
    write_generic_tiff(tmp_path / "s.tif", np.full((192, 256, 3), 243, np.uint8), mpp=0.5)
    write_table(tmp_path / "m.csv", ("path",), [("s.tif",)])
    assert tile(tmp_path, "--method", "none") == 0
    assert corners(tmp_path) == {(x, y) for x in range(0, 256, 64) for y in range(0, 192, 64)}
    segment = read_segment_table(tmp_path / "run/segment/s.h5")
    assert segment.mask.fraction == 1
    assert segment.warning == ""


def test_translated_outlines_are_where_they_say(tmp_path: Path) -> None:
    near, far = (mask_of(write(tmp_path / "t.json", [feature(translate(HOLED, d, 0))])) for d in (0, 100))
    np.testing.assert_array_equal(near.pixels[:, :-50], far.pixels[:, 50:])


def drawn(height: int, width: int, top: int, left: int, bottom: int, right: int) -> Image.Image:
    pixels = np.zeros((height, width), np.uint8)
    pixels[top:bottom, left:right] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "own_mpp", "marked", "expected"),
    [
        ((96, 128), 4.0, (16, 16, 64, 80), (128, 128, 640, 512)),  # spans the slide of 1024 x 768 at 0.5
        ((100, 160), 4.0, (16, 16, 64, 80), (128, 128, 640, 512)),  # padded beyond it
        ((72, 90), 4.0, (16, 16, 64, 80), (128, 128, 640, 512)),  # its upper left part
        ((768, 768), 0.5, (128, 128, 512, 640), (128, 128, 640, 512)),  # as fine as the slide, and square
        ((13, 21), 25.0, (2, 3, 8, 13), (150, 100, 650, 400)),  # coarser than the mask
    ],
)
def test_a_mask_with_a_scale_may_have_any_shape(
    tmp_path: Path, size: tuple[int, int], own_mpp: float, marked: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    path = tmp_path / "m.png"
    drawn(*size, *marked).save(path)
    found = mask_of(path, own_mpp=own_mpp)
    left, top, right, bottom = expected
    rows, columns = np.nonzero(found.pixels)
    scale = INFO.size.width / found.pixels.shape[1]
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * scale
    np.testing.assert_allclose(edges, expected, atol=scale)
    assert area(found) == pytest.approx((right - left) * (bottom - top), rel=0.01)
    if size[0] / size[1] != 0.75:
        with pytest.raises(SlideError, match="not a smaller copy") as caught:
            mask_of(path)
        assert "tissue_mpp" in str(caught.value.todo)


def test_a_mask_of_the_bounds_with_a_scale_lies_there(tmp_path: Path) -> None:
    info = replace(INFO, bounds=Box(256, 128, 512, 512))
    drawn(64, 64, 0, 0, 32, 32).save(tmp_path / "m.png")
    rows, columns = np.nonzero(mask_of(tmp_path / "m.png", info, own_mpp=4.0).pixels)
    assert (columns.min() * 2, rows.min() * 2, columns.max() * 2 + 2, rows.max() * 2 + 2) == (256, 128, 512, 384)
    rows, columns = np.nonzero(mask_of(tmp_path / "m.png", info, own_mpp=4.0, no_crop=True).pixels)
    assert (columns.min(), rows.min()) == (0, 0)


def test_a_scale_that_does_not_fit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    drawn(96, 128, 0, 0, 96, 128).save(path)
    with pytest.raises(SlideError, match=r"94% of the marked area of mask .* lies off the slide at 16 micrometres"):
        mask_of(path, own_mpp=16.0)
    drawn(96, 140, 0, 0, 96, 140).save(path)
    assert (
        "9% of the marked area of mask m.png lies off" in given_tissue(path, INFO, 0.5, 1.0, DENSE, own_mpp=4.0).warning
    )
    with pytest.raises(SlideError, match="less than a pixel"):
        mask_of(path, own_mpp=0.001)
    write(tmp_path / "t.geojson", DOCUMENTS["one Feature"])
    with pytest.raises(SlideError, match="tissue_mpp is for masks"):
        mask_of(tmp_path / "t.geojson", own_mpp=4.0)
