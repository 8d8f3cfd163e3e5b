"""Every file of the data folder opens and reads right, or is refused in one sentence."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.open import open_slide

# file: (backend, vendor, level sizes, mpp, objective)
GOOD = {
    "slides/CMU-1-Small-Region.svs": ("jpegtiff", "aperio", [(2220, 2967)], 0.499, 20),
    "slides/TCGA-CR-7395-01A-01-TS1.svs": ("jpegtiff", "aperio", [(4443, 3567), (2221, 1783)], None, None),
    "slides/metaplasia-HE.svs": ("jpegtiff", "aperio", [(13198, 11685), (3300, 2922), (825, 731)], 0.2528, 40),
    "slides/metaplasia-trypsin-IHC.svs": ("jpegtiff", "aperio", [(6535, 6285), (1634, 1572)], 0.5044, 20),
    "slides/lung-SCC-HE3.svs": ("jpegtiff", "aperio", [(17883, 16091), (4471, 4023), (1118, 1006)], 0.263018, 40),
    "slides/multiframe_camelyon_challenge_image.dcm": ("openslide", "dicom", [(1152, 700)], 28.9685, None),
    "slides/kidney-48-5.tif": ("tiffslide", "generic-tiff", [(1493, 901)], None, None),
    "derived/trypsin-IHC-jp2k-tiled-nompp.tiff": ("jpegtiff", "generic-tiff", [(3267, 3142)], None, None),
    "derived/trypsin-IHC-jpeg-stripped-singlelevel.tiff": ("tiffslide", "generic-tiff", [(3267, 3142)], 1.0088, None),
    "derived/trypsin-IHC-2series.ome.tiff": (
        "jpegtiff", "ome-tiff", [(3267, 3142), (1634, 1571), (817, 786)], 1.0088, None,
    ),
}  # fmt: skip

BROKEN = {
    "broken/TCGA-CR-7395_truncated_at_1500000.svs": (
        "truncated TIFF: directory 0 should be at byte 2769012 but the file ends at 1500000"
    ),
    "broken/broken.svs": "not a slide: header b'IJrE' is not TIFF, DICOM or MIRAX",
    "broken/unopenable.tiff": (
        "OpenSlide cannot open it: Unsupported TIFF compression: 52479; "
        "tiffslide: TIFF compression 52479 is not supported"
    ),
    "broken/small_dicom.dcm": "the DICOM slide cannot be read: Couldn't get image flavor",
}


def test_the_tables_name_every_file(data_dir: Path) -> None:
    files = {f"{path.parent.name}/{path.name}" for part in ("slides", "derived", "broken") for path in
             (data_dir / part).iterdir()}  # fmt: skip
    assert files == {*GOOD, *BROKEN, "broken/unreadable.svs"}


@pytest.mark.parametrize("name", GOOD)
def test_good_files_say_what_they_are(data_dir: Path, name: str) -> None:
    backend, vendor, sizes, mpp, objective = GOOD[name]
    with open_slide(data_dir / name) as slide:
        info = slide.info
    assert (info.backend, info.vendor) == (backend, vendor)
    assert [(level.size.width, level.size.height) for level in info.levels] == sizes
    assert info.mpp == (None if mpp is None else pytest.approx(mpp))
    assert info.objective == objective


@pytest.mark.parametrize("name", [name for name in GOOD if not name.endswith(".dcm")])
def test_good_files_read_the_pixels_that_tifffile_decodes(data_dir: Path, name: str) -> None:
    with open_slide(data_dir / name) as slide, tifffile.TiffFile(data_dir / name) as tiff:
        for number, level in enumerate(slide.info.levels):
            if level.size.pixels > 12_000_000:
                continue
            # One read of at most 4096 px per side: OpenSlide splits larger ones and interpolates at the seams.
            width, height = min(level.size.width, 4096), min(level.size.height, 4096)
            found = slide.read_region(0, 0, number, width, height)
            assert np.array_equal(found, tiff.series[0].levels[number].asarray()[:height, :width])


@pytest.mark.parametrize("name", ["slides/metaplasia-HE.svs", "slides/lung-SCC-HE3.svs"])
def test_both_backends_read_the_same_level_0_pixels(data_dir: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    with open_slide(data_dir / name, "openslide") as one, open_slide(data_dir / name, "tiffslide") as two:
        assert one.info.levels == two.info.levels
        assert one.info.mpp == pytest.approx(two.info.mpp)
        for _ in range(10):
            x, y = int(rng.integers(-200, one.info.size.width)), int(rng.integers(-200, one.info.size.height))
            assert np.array_equal(one.read_region(x, y, 0, 500, 300), two.read_region(x, y, 0, 500, 300))


def test_a_dicom_slide_shows_tissue_on_a_light_ground(data_dir: Path) -> None:
    with open_slide(data_dir / "slides/multiframe_camelyon_challenge_image.dcm") as slide:
        image = slide.read_region(0, 0, 0, 1152, 700)
    assert image.mean() > 180
    assert image.std() > 20


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_sentence(data_dir: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SlideError) as caught:
        open_slide(data_dir / name)
    assert caught.value.what == BROKEN[name]
    assert caught.value.todo
    assert capfd.readouterr() == ("", "")


def test_a_slide_whose_only_tile_is_damaged_says_where(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_slide(data_dir / "broken/unreadable.svs") as slide, pytest.raises(SlideError) as caught:
        slide.read_region(0, 0, 0, 16, 16)
    assert caught.value.what == "region at (0, 0), level 0, 16 x 16 pixels does not decode: Bogus marker length"
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_dicom_files_is_one_slide(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "slides/multiframe_camelyon_challenge_image.dcm"
    shutil.copy(source, tmp_path / "b.dcm")
    (tmp_path / "a.txt").write_text("not a slide")
    with open_slide(tmp_path) as slide:
        assert slide.info.vendor == "dicom"
        assert slide.info.size.width == 1152


def test_a_folder_of_two_dicom_slides_is_refused(data_dir: Path, tmp_path: Path) -> None:
    shutil.copy(data_dir / "slides/multiframe_camelyon_challenge_image.dcm", tmp_path / "a.dcm")
    shutil.copy(data_dir / "broken/small_dicom.dcm", tmp_path / "b.dcm")
    with pytest.raises(
        SlideError, match=r"several DICOM series in one folder: b\.dcm and a\.dcm belong to different ones"
    ):
        open_slide(tmp_path)


def _with_number(data: bytes, tag: tuple[int, int], value: int) -> bytes:
    """A DICOM file (explicit VR, little endian) with one more element of type UL, at its place."""
    long_kinds, at = {b"OB", b"OW", b"SQ", b"UN", b"UT"}, 132
    while True:
        group, element, kind, length = struct.unpack("<HH2sH", data[at : at + 8])
        if (group, element) >= tag:
            break
        head = 12 if kind in long_kinds else 8
        at += head + (struct.unpack("<I", data[at + 8 : at + 12])[0] if head == 12 else length)
    return data[:at] + struct.pack("<HH2sHI", *tag, b"UL", 4, value) + data[at:]


def test_a_dicom_of_several_optical_paths_says_which_is_shown(data_dir: Path, tmp_path: Path) -> None:
    source = (data_dir / "slides/multiframe_camelyon_challenge_image.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(_with_number(source, (0x48, 0x302), 2))
    with open_slide(tmp_path / "a.dcm") as slide:
        assert slide.info.notes == ("the first of 2 optical paths is shown",)
    (tmp_path / "b.dcm").write_bytes(_with_number(source, (0x48, 0x303), 3))
    with pytest.raises(SlideError, match="DICOM with several focal planes"):
        open_slide(tmp_path / "b.dcm")
