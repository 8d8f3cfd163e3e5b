"""Folders of slides as people have them: links, equal names, DICOM series, kinds that are not read, addresses."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import tifffile

from tests.dicom_files import ANNOTATIONS, EXPLICIT, IMPLICIT, element, sequence, with_meta, write_dicom_slide
from tests.slide_files import tissue_like, write_generic_tiff, write_pyramid_tiff
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.discover import find_slides
from wsi_pipeline.cohort.manifest import read_cohort
from wsi_pipeline.errors import ManifestError, SlideError, UsageError
from wsi_pipeline.files.dicom_header import read_dicom_header
from wsi_pipeline.slides.open import open_slide

SMALL = tissue_like(256, 192)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def ids(*sources: Path) -> list[str]:
    return [slide_id for slide_id, _ in find_slides(sources).slides]


def notes(source: Path) -> str:
    return "\n".join(find_slides([source]).notes)


# Links


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    touch(tmp_path, "nas/p1.tif", "slides/p2.tif", "slides/deep/p3.svs")
    (tmp_path / "slides/site1").symlink_to(tmp_path / "nas")
    (tmp_path / "slides/deep/round").symlink_to(tmp_path / "slides")  # leads back to where it began
    (tmp_path / "nas/self").symlink_to(tmp_path / "nas")
    assert sorted(ids(tmp_path / "slides")) == ["p1", "p2", "p3"]


def test_a_slide_that_a_link_leads_to_again_is_one_slide(tmp_path: Path) -> None:
    touch(tmp_path, "all/a.svs")
    (tmp_path / "all/0-link").symlink_to(tmp_path / "all")
    (tmp_path / "all/again.svs").symlink_to(tmp_path / "all/a.svs")
    assert find_slides([tmp_path / "all"]).slides == (("a", tmp_path / "all/a.svs"),)


def test_linked_files_with_names_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "store/1f3a.svs", "store/9b20.svs", "named/x")
    (tmp_path / "named/TCGA-01.svs").symlink_to(tmp_path / "store/1f3a.svs")
    (tmp_path / "named/TCGA-02.svs").symlink_to(tmp_path / "store/9b20.svs")
    assert ids(tmp_path / "named") == ["TCGA-01", "TCGA-02"]


# Equal names


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["siteA/s1.svs", "siteB/s1.svs", "siteB/s2.svs"], ["siteA-s1", "siteB-s1", "s2"]),
        (["siteA/x/s1.svs", "siteB/x/s1.svs"], ["siteA-x-s1", "siteB-x-s1"]),
        (["siteA/s1.svs", "siteB/s1.tif"], ["siteA-s1", "siteB-s1"]),
        (["a/s1.svs", "a/s1.tif"], ["s1.svs", "s1.tif"]),
        (["a/s1.svs", "a/s1.ome.tif", "b/s1.svs"], ["a-s1.ome.tif", "a-s1.svs", "b-s1.svs"]),
        (["a/s.svs", "b/s.svs", "a-s.svs"], None),
        (["a-b/c.svs", "a/b-c.svs", "b/c.svs"], None),
    ],
)
def test_equal_names_get_the_names_of_their_folders(
    tmp_path: Path, files: list[str], expected: list[str] | None
) -> None:
    touch(tmp_path, *files)
    found = ids(tmp_path)
    assert len(set(found)) == len(files)
    assert ids(tmp_path) == found
    if expected is not None:
        assert sorted(found) == sorted(expected)
        assert "files of one name" in notes(tmp_path)


def test_equal_names_in_a_table_without_ids(tmp_path: Path) -> None:
    touch(tmp_path, "siteA/s1.svs", "siteB/s1.svs")
    table = tmp_path / "m.csv"
    table.write_text("path,label\nsiteA/s1.svs,x\nsiteB/s1.svs,y\n")
    cohort = read_cohort([table])
    assert [(record.slide_id, record.patient_id) for record in cohort.records] == [
        ("siteA-s1", "siteA-s1"), ("siteB-s1", "siteB-s1"),
    ]  # fmt: skip
    table.write_text("path,label\nsiteA/s1.svs,x\nsiteA/s1.svs,y\n")
    with pytest.raises(ManifestError, match="'s1' appears twice"):
        read_cohort([table])


# DICOM


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_dicom_series_are_slides(tmp_path: Path, suffix: str) -> None:
    for k, series in enumerate(("1.2.826.1", "1.2.826.2")):
        names = [f"{'ab'[k]}{n}{suffix}" for n in (2, 1)]  # the largest level is not the first file
        write_dicom_slide(tmp_path / "flat", tissue_like(640, 512, k), series, names)
        write_dicom_slide(
            tmp_path / "nested" / f"slide{k}", tissue_like(640, 512, k), series, [f"level-{n}{suffix}" for n in (0, 1)]
        )
    flat = find_slides([tmp_path / "flat"]).slides
    assert flat == (("1.2.826.1", tmp_path / f"flat/a2{suffix}"), ("1.2.826.2", tmp_path / f"flat/b2{suffix}"))
    assert ids(tmp_path / "nested") == ["slide0", "slide1"]
    assert ids(tmp_path / "nested/slide1") == ["slide1"]
    for _, path in flat:
        with open_slide(path) as slide:
            assert [(level.size.width, level.size.height) for level in slide.info.levels] == [(640, 512), (160, 128)]


def test_dicom_files_that_are_no_slides_are_counted(tmp_path: Path) -> None:
    write_dicom_slide(tmp_path, SMALL, "1.2.3", ["x.dcm"])
    body = element(0x00080016, "UI", ANNOTATIONS.encode()) + element(0x0020000E, "UI", b"1.2.9")
    (tmp_path / "annotations.dcm").write_bytes(with_meta(body, sop_class=ANNOTATIONS))
    assert ids(tmp_path) == ["x"]
    assert "1 DICOM that is not a whole-slide image" in notes(tmp_path)
    with open_slide(tmp_path) as slide:  # nor does it make the folder one of two series
        assert slide.info.size.width == 256


def test_a_folder_of_two_series_names_a_file_of_each(tmp_path: Path) -> None:
    write_dicom_slide(tmp_path, SMALL, "1.2.3", ["a.dcm"])
    write_dicom_slide(tmp_path, SMALL, "1.2.4", ["b.dcm"])
    with pytest.raises(
        SlideError, match=r"several DICOM series in one folder: b\.dcm and a\.dcm belong to different ones"
    ):
        open_slide(tmp_path)


def test_a_series_of_two_pyramids_is_refused(tmp_path: Path) -> None:
    """OpenSlide takes the levels of both for one slide."""
    write_dicom_slide(tmp_path, SMALL, "1.2.3", ["a.dcm"], pyramid="1.2.3.91")
    with open_slide(tmp_path / "a.dcm") as slide:
        assert slide.info.size.width == 256
    write_dicom_slide(tmp_path, tissue_like(128, 128), "1.2.3", ["b.dcm"], pyramid="1.2.3.92")
    with pytest.raises(SlideError, match="DICOM series with 2 pyramids"):
        open_slide(tmp_path / "a.dcm")


def test_a_dicomdir_is_no_slide(tmp_path: Path) -> None:
    write_dicom_slide(tmp_path, SMALL, "1.2.3", ["IM1"])
    (tmp_path / "DICOMDIR").write_bytes(with_meta(b"", sop_class="1.2.840.10008.1.3.10"))
    assert ids(tmp_path) == ["IM1"]


@pytest.mark.parametrize("implicit", [False, True])
def test_headers_are_read_past_nested_sequences(tmp_path: Path, implicit: bool) -> None:
    def one(tag: int, kind: str, value: bytes) -> bytes:
        return element(tag, kind, value, implicit=implicit)

    inner = sequence(0x00081199, one(0x0020000E, "UI", b"9.9.9"), implicit=implicit)
    body = b"".join(
        (
            one(0x00080008, "CS", b"ORIGINAL\\PRIMARY\\LABEL\\NONE"),
            one(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.77.1.6"),
            sequence(0x00081115, inner, inner, implicit=implicit),
            one(0x0020000E, "UI", b"1.2.3"),
            one(0x00480006, "UL", struct.pack("<I", 70_000)),
            one(0x00480007, "UL", struct.pack("<I", 40_000)),
        )
    )
    path = tmp_path / "a"
    path.write_bytes(with_meta(body, syntax=IMPLICIT if implicit else EXPLICIT))
    header = read_dicom_header(path)
    assert header is not None
    assert (header.series, header.width, header.height) == ("1.2.3", 70_000, 40_000)
    assert header.is_slide
    assert not header.is_level


@pytest.mark.parametrize("length", [0, 100, 131, 140, 200, 260, 300])
def test_headers_that_break_off_are_no_crash(tmp_path: Path, length: int) -> None:
    (path,) = write_dicom_slide(tmp_path, SMALL, "1.2.3", ["a.dcm"])
    path.write_bytes(path.read_bytes()[:length])
    header = read_dicom_header(path)
    assert header is None or header.series in ("", "1.2.3")


# Kinds that are not read


def test_kinds_that_are_not_read_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "b.vsi", "_b_/stack1/frame_t.ets", "c.isyntax", "d.isyntax", "e.kfb")
    touch(
        tmp_path,
        "f.ome.zarr/0/.zgroup",
        "g.png",
        "notes.txt",
        "labels.csv",
        "h.mrxs",
        "h/Slidedat.ini",
        "h/Data0001.dat",
        "h/t.jpg",
    )
    assert ids(tmp_path) == ["a", "h"]
    assert "skipped: 2 .isyntax, 1 .kfb, 1 .png, 1 .vsi, 1 .zarr" in notes(tmp_path)


def test_a_folder_of_nothing_but_others_says_what_there_is(tmp_path: Path) -> None:
    touch(tmp_path, "a.sdpc", "b.sdpc")
    with pytest.raises(UsageError, match=r"no slides at .*skipped: 2 \.sdpc \(Sqray SDPC\)"):
        find_slides([tmp_path])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.vsi", "Olympus/Evident VSI"), ("a.isyntax", "Philips iSyntax"), ("a.kfb", "KFBio KFB"),
        ("a.sdpc", "Sqray SDPC"), ("a.lif", "Leica LIF"), ("a.nd2", "Nikon ND2"), ("a.ome.zarr/.zgroup", "OME-Zarr"),
        ("plain/zarr.json", "OME-Zarr"), ("a.zip", "zip archive"),
    ],
)  # fmt: skip
def test_other_kinds_are_refused_by_their_own_names(tmp_path: Path, name: str, what: str) -> None:
    touch(tmp_path, name)
    with pytest.raises(SlideError, match=f"^{what}") as caught:
        open_slide(tmp_path / name.partition("/")[0])
    assert caught.value.todo


def test_the_overview_in_a_vsi_is_not_taken_for_the_slide(tmp_path: Path) -> None:
    write_generic_tiff(tmp_path / "a.vsi", SMALL, mpp=0.5)
    with pytest.raises(SlideError, match="Olympus/Evident VSI"):
        open_slide(tmp_path / "a.vsi")


# Addresses


@pytest.mark.parametrize(
    ("name", "slide_id", "what"),
    [
        ("ftp://host/x.svs", "x", "a URL, not a file: ftp://host/x.svs"),
        ("az://account/a/x.svs", "x", "a URL, not a file: az://account/a/x.svs"),
        ("ftp://me:pass-word@host/y.tif", "y", "a URL, not a file: ftp://[redacted]@host/y.tif"),
        ("C:\\slides\\z.ndpi", "z", "a Windows path: C:\\slides\\z.ndpi"),
        ("D:/slides/z.ndpi", "z", "a Windows path: D:/slides/z.ndpi"),
        ("\\\\server\\share\\z.svs", "z", "a Windows path: \\\\server\\share\\z.svs"),
    ],
)
def test_addresses_are_refused_as_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, slide_id: str, what: str
) -> None:
    table = tmp_path / "m.csv"
    table.write_text(f"path\n{name}\n")
    (record,) = read_cohort([table]).records
    assert record.slide_id == slide_id
    with pytest.raises(SlideError) as caught:
        open_slide(record.path)
    assert caught.value.what == what
    assert main(["tile", str(table), "--run", str(tmp_path / "run"), "--workers", "0"]) == 3
    assert what in " ".join(capsys.readouterr().out.split())
    (again,) = read_cohort([tmp_path / "run" / "cohort.csv"]).records
    with pytest.raises(SlideError) as caught:
        open_slide(again.path)
    assert caught.value.what == what
    with pytest.raises(UsageError, match=r"not a file|Windows path"):
        find_slides([name])


def test_other_ways_to_write_a_path(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a b.svs", "sub/c.svs")
    table = tmp_path / "m.csv"
    table.write_text(f"path\n{(tmp_path / 'sub/a b.svs').as_uri()}\nsub\\c.svs\n")
    records = read_cohort([table]).records
    assert [(record.slide_id, record.path) for record in records] == [
        ("a b", tmp_path / "sub/a b.svs"), ("c", tmp_path / "sub/c.svs"),
    ]  # fmt: skip


# Reasons


def test_openslide_s_reason_is_told_where_tiffslide_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", SMALL, mpp=0.5, compression="webp")
    with open_slide(path) as slide:
        assert slide.info.backend == "tiffslide"
        (note,) = slide.info.notes
    assert note.endswith("OpenSlide cannot open it: Unsupported TIFF compression: 50001")
    table = tmp_path / "check.csv"
    assert main(["check", str(path), "--run", str(tmp_path / "run"), "--csv", str(table), "--quiet"]) == 0
    assert "Unsupported TIFF compression: 50001" in table.read_text()


def test_both_reasons_are_told_where_neither_reads(tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", SMALL, mpp=0.5, compression="webp")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(34712 - 1)
    with pytest.raises(SlideError, match=r"OpenSlide cannot open it: .*34711; tiffslide: .*34711"):
        open_slide(path)


def test_part_of_a_file_named_outright_or_by_a_glob(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with tifffile.TiffWriter(tmp_path / f"{name}.ome.tif", ome=True) as writer:
            for seed in (1, 2):
                writer.write(tissue_like(256, 192, seed), photometric="rgb", tile=(64, 64), metadata={"axes": "YXS"})
    one, all_of_them = tmp_path / "a.ome.tif#scene=1", tmp_path / "*.ome.tif#scene=1"
    assert ids(one) == ["a_scene1"]
    assert ids(tmp_path / "a.ome.tif", one) == ["a", "a_scene1"]
    assert ids(all_of_them) == ["a_scene1", "b_scene1"]
    (record,) = read_cohort([one]).records
    assert (record.slide_id, record.image) == ("a_scene1", "1")
    with open_slide(record.path) as slide:
        assert (slide.read_region(0, 0, 0, 256, 192) == tissue_like(256, 192, 2)).all()
    with pytest.raises(UsageError, match="no slides at"):
        find_slides([tmp_path / "c.ome.tif#scene=1"])
