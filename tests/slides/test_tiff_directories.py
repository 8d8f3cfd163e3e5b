"""Which directory of a TIFF file is the slide, whatever their order, marks, byte order and codec."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.slide_files import Pixels, resolution, shrunk, tissue_like
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import SLIDE_BACKENDS

RGB = tissue_like(448, 320)
OTHER = tissue_like(224, 160, seed=3)
MPP = 0.5
BACKENDS = ("auto", *SLIDE_BACKENDS.names())


def tiled(pixels: Pixels, writer: tifffile.TiffWriter, **options: Any) -> None:
    """Append one tiled image."""
    kind = {"photometric": "rgb", "tile": (128, 128), "compression": "deflate", "metadata": None, **options}
    writer.write(pixels, **kind)


def level(step: int) -> Pixels:
    """The slide, shrunk."""
    return RGB if step == 1 else shrunk(RGB, step)


def same_whatever_reads(path: Path, right: Pixels, mpp: float | None, *, within: int = 0, **choice: str) -> list[str]:
    """Every backend shows `right` at `mpp` or refuses the file; names of those that show it."""
    shown, refused = [], {}
    for backend in BACKENDS:
        try:
            slide = open_slide(path, backend, **choice)
        except SlideError as error:
            refused[backend] = error
            continue
        with slide:
            assert (slide.info.size.height, slide.info.size.width) == right.shape[:2], backend
            assert slide.info.mpp == (None if mpp is None else pytest.approx(mpp)), backend
            found = slide.read_region(0, 0, 0, right.shape[1], right.shape[0])
            assert np.abs(found.astype(int) - right).max() <= within, backend
            for number, one in enumerate(slide.info.levels[1:], 1):  # levels show the same picture
                small = slide.read_region(0, 0, number, one.size.width, one.size.height)
                step = round(one.downsample)
                expected = shrunk(right, step)[: one.size.height, : one.size.width]
                assert np.abs(small[: expected.shape[0], : expected.shape[1]].astype(int) - expected).mean() < 12
        shown.append(backend)
    assert "auto" not in refused, refused
    assert all(error.todo for error in refused.values())
    return shown


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("order", permutations((1, 2, 4)), ids=str)
def test_levels_are_found_in_any_order(order: tuple[int, ...], marked: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for step in order:
            tiled(level(step), writer, subfiletype=int(marked and step > 1), **resolution(MPP * step))
    same_whatever_reads(path, RGB, MPP)
    with open_slide(path) as slide:
        assert [round(one.downsample) for one in slide.info.levels] == [1, 2, 4]
        assert slide.info.notes == ()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "zstd", "jpeg_2000_lossy", "webp", "packbits"])
def test_a_small_image_first_under_any_codec(compression: str, byteorder: str, big: bool, tmp_path: Path) -> None:
    path, kind = tmp_path / "a.tif", {"compression": None if compression == "none" else compression}
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=byteorder) as writer:
        for step in (4, 1, 2):
            tiled(level(step), writer, subfiletype=int(step > 1), **kind, **resolution(MPP * step))
    assert same_whatever_reads(path, RGB, MPP, within=0)


def test_a_stripped_thumbnail_first(tmp_path: Path) -> None:
    for mark in (0, 1):
        path = tmp_path / f"{mark}.tif"
        with tifffile.TiffWriter(path) as writer:
            tiled(level(8), writer, tile=None, rowsperstrip=16, subfiletype=mark)
            tiled(RGB, writer, **resolution(MPP))
            tiled(level(4), writer, subfiletype=1, **resolution(MPP * 4))
        same_whatever_reads(path, RGB, MPP)
        with open_slide(path) as slide:
            assert len(slide.info.levels) == 2


def test_the_full_image_in_a_subifd_of_its_preview(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        tiled(level(8), writer, subifds=1, subfiletype=1)
        tiled(RGB, writer, **resolution(MPP))
    same_whatever_reads(path, RGB, MPP)


@pytest.mark.parametrize("first", [True, False])
def test_label_and_macro_are_never_the_slide_even_where_they_are_larger(first: bool, tmp_path: Path) -> None:
    path, macro = tmp_path / "a.tif", tissue_like(1280, 900, seed=9)
    with tifffile.TiffWriter(path) as writer:
        for image in ("macro", "slide") if first else ("slide", "macro"):
            if image == "macro":
                tiled(macro, writer, description="macro 1280x900")
            else:
                tiled(RGB, writer, **resolution(MPP))
    same_whatever_reads(path, RGB, MPP)


def test_another_scene_of_half_the_size_is_no_level_and_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        tiled(OTHER, writer, **resolution(MPP))
        tiled(RGB, writer, **resolution(MPP))
        tiled(level(4), writer, subfiletype=1, **resolution(MPP * 4))
    same_whatever_reads(path, RGB, MPP)
    with open_slide(path) as slide:
        assert [round(one.downsample) for one in slide.info.levels] == [1, 4]
        assert slide.info.notes == (
            "image 1 of the file is read, 1 other not: 0 (224 x 160); choose with the column image or #scene=N",
        )
    same_whatever_reads(path, OTHER, MPP, image="0")
    with open_slide(tmp_path / "a.tif#scene=0") as slide:
        assert np.array_equal(slide.read_region(0, 0, 0, 224, 160), OTHER)
    with pytest.raises(SlideError, match="the file has no image '2', only 0 to 1"):
        open_slide(path, image="2")


def test_a_reduced_image_of_another_scene_is_no_level(tmp_path: Path) -> None:
    path, other = tmp_path / "a.tif", tissue_like(440, 312, seed=5)
    with tifffile.TiffWriter(path) as writer:
        for scene in (other, RGB):
            tiled(scene, writer, **resolution(MPP))
            tiled(shrunk(scene, 4), writer, subfiletype=1, **resolution(MPP * 4))
    same_whatever_reads(path, RGB, MPP)
    same_whatever_reads(path, other, MPP, image="0")


def test_masks_beside_the_image_are_passed_over(tmp_path: Path) -> None:
    path, mask = tmp_path / "a.tif", np.ones(RGB.shape[:2], bool)
    with tifffile.TiffWriter(path) as writer:
        tiled(mask, writer, photometric="mask", subfiletype=4)
        tiled(RGB, writer, **resolution(MPP))
    same_whatever_reads(path, RGB, MPP)


ORIENTED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_the_image_as_a_whole(orientation: int, stripped: bool, tmp_path: Path) -> None:
    path, right = tmp_path / "a.tif", np.ascontiguousarray(ORIENTED[orientation](RGB))
    shape = {"tile": None, "rowsperstrip": 32} if stripped else {}
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2):
            tag = [(274, "H", 1, orientation, True)]
            tiled(level(step), writer, extratags=tag, subfiletype=step - 1, **shape, **resolution(MPP * step))
    same_whatever_reads(path, right, MPP)
    with open_slide(path) as slide:
        assert len(slide.info.levels) == 2
        part = slide.read_region(130, 77, 0, 150, 200)
        assert np.array_equal(part, right[77:277, 130:280])
        turned = f"rotated or mirrored as its orientation tag {orientation} says"
        assert slide.info.notes == (() if orientation == 1 else (turned,))


def test_an_orientation_there_is_not_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, metadata=None, tile=(128, 128), extratags=[(274, "H", 1, 9, True)])
    with pytest.raises(SlideError, match="orientation 9"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("text", "mpp"),
    [
        ("Mikroscan SL5\n640x480|AppMag = 20|MPP = 0.4654", 0.4654),
        ("Motic Digital Slide;MPP=0.26;AppMag=40", 0.26),
        ("|MPP = 0,2738|", 0.2738),
        ("scanned at mpp: 0.25 um", 0.25),
        ("XMPP = 3", None),
        ("MPP = unknown", None),
    ],
)
def test_descriptions_state_the_resolution(text: str, mpp: float | None, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        tiled(RGB, writer, description=text)
    same_whatever_reads(path, RGB, mpp)


@pytest.mark.parametrize(
    ("unit", "per_unit"), [("INCH", 25_400), ("CENTIMETER", 10_000), ("MILLIMETER", 1_000), ("MICROMETER", 1)]
)
def test_every_unit_of_the_resolution_tags_counts(unit: str, per_unit: float, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        tiled(level(4), writer, subfiletype=1, resolution=(per_unit / 2, per_unit / 2), resolutionunit=unit)
        tiled(RGB, writer, resolution=(per_unit / MPP, per_unit / MPP), resolutionunit=unit)
    same_whatever_reads(path, RGB, MPP)


def test_resolutions_without_a_unit_state_nothing(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        tiled(RGB, writer, resolution=(2, 2), resolutionunit="NONE")
    same_whatever_reads(tmp_path / "a.tif", RGB, None)


def aperio(writer: tifffile.TiffWriter, pixels: Pixels, text: str = "", **options: Any) -> None:
    """Append one image with an Aperio description."""
    tiled(pixels, writer, description=f"Aperio Image Library v12.0.0 \r\n{text}|AppMag = 20|MPP = 0.5", **options)


@pytest.mark.parametrize("name", ["Aperio", "Huron"])
@pytest.mark.parametrize("pyramid", ["none", "by plane", "by level", "first plane"])
def test_focal_planes_of_a_scanner_are_told_and_the_first_is_read(name: str, pyramid: str, tmp_path: Path) -> None:
    path, planes = tmp_path / "a.svs", [RGB, np.roll(RGB, 40, 1), np.roll(RGB, 80, 1)]
    text = "Aperio Image Library v12.0.0 \r\n832x640|AppMag = 20|MPP = 0.5" if name == "Aperio" else "Huron TissueScope"
    order = {
        "none": [(1, k) for k in range(3)],
        "by plane": [(step, k) for k in range(3) for step in (1, 4)],
        "by level": [(step, k) for step in (1, 4) for k in range(3)],
        "first plane": [(1, 0), (4, 0), (1, 1), (1, 2)],
    }[pyramid]
    with tifffile.TiffWriter(path) as writer:
        for number, (step, plane) in enumerate(order):
            pixels = planes[plane] if step == 1 else shrunk(planes[plane], step)
            tiled(pixels, writer, description=text, **resolution(MPP * step))
            if number == 0:
                tiled(level(8), writer, tile=None, rowsperstrip=16, description=text)
        tiled(OTHER, writer, tile=None, description=f"{text}\r\nlabel 416x320", subfiletype=1)
        tiled(tissue_like(1280, 700), writer, tile=None, description=f"{text}\r\nmacro 1280x700", subfiletype=9)
    same_whatever_reads(path, planes[0], MPP)
    with open_slide(path) as slide:
        assert len(slide.info.levels) == (1 if pyramid == "none" else 2)
        assert slide.info.notes == ("plane 0 of 3 (0 to 2) is read",)
    same_whatever_reads(path, planes[2], MPP, plane="2")
    with pytest.raises(SlideError, match="the file has no plane '3', only 0 to 2"):
        open_slide(path, plane="3")


def test_equal_images_marked_as_reduced_are_planes_and_the_first_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in range(3):
            tiled(np.roll(RGB, 40 * plane, 1), writer, subfiletype=int(plane > 0), **resolution(MPP))
    same_whatever_reads(path, RGB, MPP)
    with open_slide(path) as slide:
        assert (len(slide.info.levels), slide.info.notes) == (1, ("plane 0 of 3 (0 to 2) is read",))


@pytest.mark.parametrize("tile", [(128, 128), None], ids=["tiled", "stripped"])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_separate_colour_planes_are_put_together(compression: str | None, tile: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    kind = {"rowsperstrip": 48} if tile is None else {"tile": tile}
    tifffile.imwrite(
        path, RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", metadata=None,
        compression=compression, **kind, **resolution(MPP),
    )  # fmt: skip
    assert "tiffslide" in same_whatever_reads(path, RGB, MPP)


@pytest.mark.parametrize("tile", [(128, 128), None], ids=["tiled", "stripped"])
def test_white_is_zero(tile: Any, tmp_path: Path) -> None:
    path, grey = tmp_path / "a.tif", RGB[..., 0]
    tifffile.imwrite(path, 255 - grey, photometric="miniswhite", metadata=None, tile=tile, **resolution(MPP))
    same_whatever_reads(path, np.repeat(grey[..., None], 3, axis=2), MPP)


def test_a_macro_is_known_by_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        tiled(RGB, writer, **resolution(MPP))
        tiled(level(2), writer, subfiletype=1)
        writer.write(tissue_like(1200, 800), photometric="rgb", rowsperstrip=64, subfiletype=9, metadata=None)
    same_whatever_reads(path, RGB, MPP)


@pytest.mark.parametrize("marks", [{"subfiletype": 9}, {"subfiletype": 1, "description": "Aperio\nlabel 640x832"}])
def test_a_file_with_nothing_but_a_macro_is_refused(tmp_path: Path, marks: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", rowsperstrip=64, metadata=None, **marks)
    with pytest.raises(SlideError, match="only a label, macro or overview"):
        open_slide(tmp_path / "a.tif")
    with open_slide(tmp_path / "a.tif", image="0") as slide:
        assert np.array_equal(slide.read_region(0, 0, 0, RGB.shape[1], RGB.shape[0]), RGB)


@pytest.mark.parametrize("first", [True, False])
def test_a_grey_mask_of_the_same_size_is_not_the_slide(tmp_path: Path, first: bool) -> None:
    path = tmp_path / "a.tif"
    mask = np.where(RGB[..., 1] < 200, 255, 0).astype(np.uint8)
    with tifffile.TiffWriter(path) as writer:
        for number in (0, 1):
            if (number == 0) == first:
                tiled(mask, writer, photometric="minisblack")
            else:
                tiled(RGB, writer, **resolution(MPP))
    same_whatever_reads(path, RGB, MPP)
