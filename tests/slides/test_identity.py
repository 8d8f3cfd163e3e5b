"""The quick digest: changes with the file, not with its name, from a bounded part of it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.inspect.identity import _pieces, quick_digest, same_slide


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_equal_content_gives_equal_digests_whatever_the_name(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    one, two = _write(tmp_path / "a.svs", content), _write(tmp_path / "b.tif", content)
    assert quick_digest(one) == quick_digest(two)
    assert len(quick_digest(one)) == 64


@pytest.mark.parametrize("size", [1, 1000, 300_000, 3_000_000])
def test_a_change_at_either_end_or_in_length_shows(tmp_path: Path, size: int) -> None:
    content = bytearray(size)
    seen = {quick_digest(_write(tmp_path / "a", bytes(content)))}
    seen.add(quick_digest(_write(tmp_path / "a", bytes(content) + b"\0")))
    for place in {0, size - 1}:
        changed = bytearray(content)
        changed[place] = 1
        seen.add(quick_digest(_write(tmp_path / "a", bytes(changed))))
    assert len(seen) == 2 + len({0, size - 1})


@pytest.mark.parametrize("size", [0, 1, 400_000, 2_000_000, 7 << 30])
def test_little_is_read_and_all_of_it_lies_in_the_file(size: int) -> None:
    pieces = _pieces(size)
    assert sum(length for _, length in pieces) < 1_000_000
    assert all(start >= 0 and start + length <= size for start, length in pieces)
    assert pieces == sorted(pieces)
    assert pieces[0][0] == 0
    assert sum(pieces[-1]) == size


def test_a_sample_in_the_middle_shows(tmp_path: Path) -> None:
    content = bytearray(5_000_000)
    before = quick_digest(_write(tmp_path / "a", bytes(content)))
    start, _ = _pieces(len(content))[8]
    content[start + 5] = 1
    assert quick_digest(_write(tmp_path / "a", bytes(content))) != before


def test_folders_count_every_file_by_name_and_content(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    _write(folder / "b.dcm", b"two")
    _write(folder / "a.dcm", b"one")
    first = quick_digest(folder)
    assert quick_digest(folder) == first
    _write(folder / "a.dcm", b"two")
    _write(folder / "b.dcm", b"one")
    second = quick_digest(folder)
    _write(folder / "c.dcm", b"")
    assert len({first, second, quick_digest(folder)}) == 3


def test_names_that_are_no_utf8_count_too(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.dcm")).write_bytes(b"one")
    first = quick_digest(tmp_path)
    (tmp_path / os.fsdecode(b"a\xff.dcm")).rename(tmp_path / os.fsdecode(b"a\xfe.dcm"))
    assert quick_digest(tmp_path) != first


def test_a_mirax_slide_counts_with_its_folder(tmp_path: Path) -> None:
    slide = _write(tmp_path / "a.mrxs", b"picture")
    alone = quick_digest(slide)
    (tmp_path / "a").mkdir()
    _write(tmp_path / "a" / "Data0000.dat", b"pixels")
    assert quick_digest(slide) != alone


def test_a_missing_file_is_a_slide_error(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="file not found"):
        quick_digest(tmp_path / "gone.svs")


def _dicom(path: Path, series: str, tail: bytes) -> Path:
    """A DICOM file of its first elements alone: SOP class and series, explicit little endian."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return struct.pack("<HH2sH", group, number, kind, len(value)) + value

    meta = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    body = element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.77.1.6") + element(0x20, 0xE, b"UI", series.encode())
    return _write(path, b"\0" * 128 + b"DICM" + meta + body + tail)


def test_a_dicom_file_counts_with_the_others_of_its_series(tmp_path: Path) -> None:
    largest = _dicom(tmp_path / "0.dcm", "1.2", b"a" * 64)
    alone = quick_digest(largest)
    assert alone == quick_digest(largest, series=False)
    _dicom(tmp_path / "9.dcm", "1.3", b"of another slide")
    assert quick_digest(largest) == alone
    _dicom(tmp_path / "1.dcm", "1.2", b"b" * 32)
    both = quick_digest(largest)
    (tmp_path / "1.dcm").rename(tmp_path / "x")
    assert both == quick_digest(largest) != alone
    assert same_slide(largest, both)
    assert same_slide(largest, alone), "a store of before"
    _dicom(tmp_path / "x", "1.2", b"c" * 32)
    assert quick_digest(largest) != both
    assert not same_slide(largest, both)
    assert quick_digest(largest, series=False) == alone
