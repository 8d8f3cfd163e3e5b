"""Opening by content, refusals, damage: on files made here."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.slide_files import (
    damage_tile,
    resolution,
    tissue_like,
    write_generic_tiff,
    write_ome_tiff,
    write_pyramid_tiff,
    write_stripped_tiff,
)
from wsi_pipeline.errors import SlideError, UsageError
from wsi_pipeline.slides.backends import tiff_page
from wsi_pipeline.slides.backends.openslide import OpenSlideSlide
from wsi_pipeline.slides.inspect.preflight import codec_of
from wsi_pipeline.slides.inspect.sniff import refusal
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import SLIDE_BACKENDS, Slide

RGB = tissue_like(600, 500)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "slide.jpg", RGB, mpp=0.5)
    with open_slide(path) as slide:
        assert (slide.info.backend, slide.info.vendor, slide.info.mpp) == ("jpegtiff", "aperio", 0.5)


def test_the_backend_that_sees_more_levels_is_taken(tmp_path: Path) -> None:
    path = write_ome_tiff(tmp_path / "slide.tif", RGB, mpp=0.25)
    with open_slide(path, "openslide") as slide:
        assert len(slide.info.levels) == 1
    with open_slide(path) as slide:
        assert (slide.info.backend, len(slide.info.levels), slide.info.mpp) == ("jpegtiff", 3, 0.25)


def test_equal_pyramids_are_read_by_openslide(tmp_path: Path) -> None:
    with open_slide(write_generic_tiff(tmp_path / "a.tif", RGB, mpp=0.5, compression="packbits")) as slide:
        assert (slide.info.backend, slide.info.vendor) == ("openslide", "generic-tiff")
        assert slide.info.mpp == pytest.approx(0.5)


@pytest.mark.parametrize("options", [{"compression": "jpeg"}, {"compression": "lzw"}, {"bigtiff": True}], ids=str)
def test_either_byte_order_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    kind = {"tile": (128, 128), "photometric": "rgb", "metadata": None, **resolution(0.25), **options}
    seen = []
    for order in "<>":
        tifffile.imwrite(tmp_path / "a.tif", RGB, byteorder=order, **kind)
        with open_slide(tmp_path / "a.tif") as slide:
            pixels = slide.read_region(-5, 300, 0, 700, 210)
            seen.append((slide.info.levels, slide.info.mpp, codec_of(tmp_path / "a.tif"), pixels.tobytes()))
    assert seen[0] == seen[1]
    assert seen[0][1] == pytest.approx(0.25)


@pytest.mark.parametrize("options", [{"compression": "jpeg"}, {"compression": "lzw"}, {"planarconfig": "separate"}],
                         ids=str)  # fmt: skip
def test_ome_sizes_win_over_resolution_tags_whatever_reads_the_file(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = RGB.transpose(2, 0, 1) if "planarconfig" in options else RGB
    metadata = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    for mpp in (None, 0.5):
        kind = {"tile": (128, 128), "photometric": "rgb", "metadata": metadata, **resolution(mpp), **options}
        tifffile.imwrite(tmp_path / "a.ome.tif", pixels, **kind)
        with open_slide(tmp_path / "a.ome.tif") as slide:
            assert slide.info.mpp == pytest.approx(0.25)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, **{**kind, "metadata": {}})
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert slide.info.mpp == pytest.approx(0.5)


def test_closing_a_slide_that_others_read_is_a_slide_error_for_them(tmp_path: Path) -> None:
    path = write_generic_tiff(tmp_path / "a.tif", RGB)
    seen: list[BaseException] = []

    def read_on(slide: Slide) -> None:
        try:
            while True:
                slide.read_region(0, 0, 0, 16, 16)
        except Exception as error:  # noqa: BLE001 - which kind is what is tested
            seen.append(error)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(60):
            with ThreadPoolExecutor(4) as pool, open_slide(path, "tiffslide") as slide:
                for _ in range(4):
                    pool.submit(read_on, slide)
    finally:
        sys.setswitchinterval(usual)
    assert {repr(error) for error in seen} == {"SlideError('slide is closed')"}
    assert len(seen) == 240


def test_unknown_backends_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown slide backend 'magic'") as caught:
        open_slide(tmp_path / "a.svs", "magic")
    for name in ("openslide", "tiffslide", "jpegtiff"):
        assert name in SLIDE_BACKENDS
        assert name in str(caught.value.todo)


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _tiff(pixels: np.ndarray, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tifffile.imwrite(folder / "a.tif", pixels, metadata=None, **options)
        return folder / "a.tif"

    return make


def _link(folder: Path) -> Path:
    (folder / "a.svs").symlink_to(folder / "gone.svs")
    return folder / "a.svs"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.svs")
    return folder / "a.svs"


SMALL = RGB[:64, :64]
DICOM_WITHOUT_SLIDE = bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x00\x00\x00\x00"
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "gone.svs", "file not found: "),
    "link": (_link, "link to a missing file: "),
    "empty": (_file("a.svs", b""), "empty file: "),
    "pipe": (_pipe, "neither a file nor a folder: "),
    "short": (_file("a.svs", b"II"), "not a slide: header b'II' is not TIFF, DICOM or MIRAX"),
    "html": (_file("a.svs", b"<html>login please"), "not a slide: header b'<htm' is not TIFF, DICOM or MIRAX"),
    "png": (_file("a.svs", b"\x89PNG\r\n\x1a\n" + bytes(200)), "the picture cannot be read: "),
    "folder": (lambda folder: folder, "the folder holds no DICOM files: "),
    "mirax": (_file("a.mrxs", b"\xff\xd8\xff\xe0"), "MIRAX slide without its data folder: a/Slidedat.ini is missing"),
    "dicom": (_file("a.dcm", DICOM_WITHOUT_SLIDE), "not a whole-slide DICOM"),
    "tiff header only": (_file("a.tif", b"II*\0"), "truncated TIFF: the file ends in its header at 4 bytes"),
    "tiff without image": (_file("a.tif", b"II*\0\0\0\0\0"), "TIFF without any image"),
    "16 bit": (
        _tiff(SMALL.astype(np.uint16) * 257),
        "TIFF with 16-bit uint16 samples; only 8-bit samples are supported",
    ),
    "float": (
        _tiff(SMALL[..., 0].astype(np.float32)),
        "TIFF with 32-bit float32 samples; only 8-bit samples are supported",
    ),
    "fluorescence": (
        _tiff(np.zeros((5, 64, 64), np.uint8), photometric="minisblack", planarconfig="separate"),
        "TIFF with 5 channels, not one RGB image",
    ),
    "stack": (
        _tiff(np.zeros((5, 64, 64, 3), np.uint8), photometric="rgb"),
        "TIFF stack with 5 planes of equal size (focal planes, time points or separate slides), not one RGB image",
    ),
    "cmyk": (
        _tiff(np.zeros((64, 64, 4), np.uint8), photometric="separated"),
        "TIFF with 4 samples per pixel of kind SEPARATED, not RGB or grey",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_slide_is_refused_in_one_sentence(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    make, sentence = REFUSED[name]
    path = make(tmp_path)
    with caplog.at_level(logging.INFO), pytest.raises(SlideError) as caught:
        open_slide(path)
    assert caught.value.what.startswith(sentence)
    assert caught.value.todo
    assert "\n" not in caught.value.what + caught.value.todo
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied"), "permission denied: a.svs"),
        (FileNotFoundError(2, "No such file"), "file not found: a.svs"),
        (OSError(5, "Input/output error"), "Input/output error: a.svs"),
    ],
)
def test_the_file_system_is_quoted(error: OSError, sentence: str) -> None:
    assert refusal(error, Path("a.svs")).what == sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", SMALL, mpp=0.5)
    path.chmod(0)
    with pytest.raises(SlideError, match="permission denied"):
        open_slide(path)


def test_strips_too_large_to_decode_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_page, "MAX_SEGMENT_PIXELS", RGB.shape[0] * RGB.shape[1] - 1)
    path = write_stripped_tiff(tmp_path / "a.tif", RGB, rows=None, compression="lzw")
    with pytest.raises(SlideError, match=r"level 0 is stored in strips of 600 x 500 pixels") as caught:
        open_slide(path)
    assert caught.value.todo == "Convert it to a tiled pyramid TIFF."
    flat = write_stripped_tiff(tmp_path / "flat.tif", RGB, rows=None, compression="none")
    with open_slide(flat) as slide:  # uncompressed: mapped, so its size does not matter
        assert np.array_equal(slide.read_region(0, 0, 0, 600, 500), RGB)


def test_unequal_axes_give_no_mpp_but_a_note(tmp_path: Path) -> None:
    tiled = tmp_path / "tiled.tif"
    tifffile.imwrite(tiled, RGB, tile=(128, 128), photometric="rgb", metadata=None, **resolution((0.25, 0.5)))
    flat = tmp_path / "flat.tif"
    tifffile.imwrite(flat, RGB, photometric="rgb", metadata=None, **resolution((0.25, 0.5)))
    for path, backend in ((tiled, "jpegtiff"), (flat, "tiffslide")):
        with open_slide(path) as slide:
            assert (slide.info.backend, slide.info.mpp) == (backend, None)
            assert slide.info.mpp_note == "the slide states different mpp for x (0.25) and y (0.5)"


@pytest.mark.parametrize("backend", ["openslide", "tiffslide"])
def test_a_damaged_tile_is_reported_with_its_place_and_spoils_nothing_else(backend: str, tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", RGB, mpp=0.5, tile=128, levels=(1,))
    with open_slide(path, backend) as slide:
        good = slide.read_region(0, 0, 0, 128, 128)
    damage_tile(path, index=7)  # row 1, column 2 of 5 columns
    with open_slide(path, backend) as slide:
        for _ in range(3):
            with pytest.raises(SlideError, match=r"at \(256, 128\).*level 0.*does not decode"):
                slide.read_region(256, 128, 0, 128, 128)
            assert np.array_equal(slide.read_region(0, 0, 0, 128, 128), good)


@pytest.mark.parametrize("backend", ["openslide", "tiffslide"])
def test_damage_met_by_one_thread_does_not_reach_the_others(backend: str, tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", RGB, mpp=0.5, tile=128, levels=(1,))
    with open_slide(path, backend) as slide:
        good = slide.read_region(0, 0, 0, 128, 128)
    damage_tile(path, index=7)

    def read(turn: int) -> bool:
        if turn % 3:
            return np.array_equal(slide.read_region(0, 0, 0, 128, 128), good)
        with pytest.raises(SlideError, match="does not decode"):
            slide.read_region(256, 128, 0, 128, 128)
        return True

    with open_slide(path, backend) as slide, ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, range(90)))


def test_after_damage_the_slide_goes_on_with_a_live_handle(tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", RGB, mpp=0.5, tile=128, levels=(1,))
    damage_tile(path, index=7)
    with OpenSlideSlide(path) as slide:
        dead = slide._handle
        with pytest.raises(SlideError, match="does not decode"):
            slide.read_region(256, 128, 0, 128, 128)
        assert slide._handle is not None
        assert slide._handle is not dead
        slide._handle.read_region((0, 0), 0, (128, 128))  # raises on a handle that met an error


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_copy_is_refused_wherever_it_ends(kept: float, tmp_path: Path) -> None:
    whole = write_pyramid_tiff(tmp_path / "whole.svs", RGB, mpp=0.5, tile=128).read_bytes()
    path = tmp_path / "part.svs"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(SlideError, match=r"^truncated TIFF: "):
        open_slide(path)


@pytest.mark.parametrize("backend", ["auto", "tiffslide"])
@pytest.mark.parametrize("kind", ["jpeg", "jpeg2000", "stripped"])
def test_data_without_a_codestream_is_a_slide_error(kind: str, backend: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.tif"
    if kind == "stripped":
        write_stripped_tiff(path, RGB[:160, :200])
    else:
        write_pyramid_tiff(path, RGB[:160, :200], mpp=0.5, tile=64, levels=(1, 2), compression=kind)
    damage_tile(path, 0)
    with open_slide(path, backend) as slide, pytest.raises(SlideError, match="decode"):
        slide.read_region(0, 0, 0, 100, 90)
