"""DICOM levels in several files (concatenations) and of sparse tiles; labels and overviews in the same series."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.dicom_files import JPEG, WHOLE_SLIDE, element, frames_of, pixel_data, sequence, with_meta
from tests.slide_files import Pixels, shrunk, tissue_like
from wsi_pipeline.cohort.discover import find_slides
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.open import open_slide

RGB = tissue_like(512, 384)
SIDE = 128
PLACES = [(x, y) for y in range(0, 384, SIDE) for x in range(0, 512, SIDE)]
VOLUME, RESAMPLED = "ORIGINAL\\PRIMARY\\VOLUME\\NONE", "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"


def write_file(
    path: Path,
    size: tuple[int, int],
    frames: Sequence[bytes],
    uid: str,
    *,
    kind: str = VOLUME,
    mpp: float = 0.5,
    places: Sequence[tuple[int, int]] | None = None,
    part: tuple[int, int, int] | None = None,
) -> Path:
    """One file. places: corner of each frame, for TILED_SPARSE; part: number, of how many, frames before."""
    path.parent.mkdir(exist_ok=True)
    numbers = {0x00280002: 3, 0x00280006: 0, 0x00280010: SIDE, 0x00280011: SIDE, 0x00280100: 8, 0x00280101: 8}
    numbers |= {0x00280102: 7, 0x00280103: 0}
    longs = {0x00480006: size[0], 0x00480007: size[1], 0x00480302: 1, 0x00480303: 1}
    texts = {
        0x00080008: ("CS", kind), 0x00080016: ("UI", WHOLE_SLIDE), 0x00080018: ("UI", uid), 0x00080060: ("CS", "SM"),
        0x0020000D: ("UI", "1.2.3.5"), 0x0020000E: ("UI", "1.2.9"),
        0x00209311: ("CS", "TILED_SPARSE" if places else "TILED_FULL"), 0x00280004: ("CS", "YBR_FULL_422"),
        0x00280008: ("IS", str(len(frames))),
    }  # fmt: skip
    if part is not None:
        texts |= {0x00200242: ("UI", "1.2.9.78"), 0x00209161: ("UI", "1.2.9.77")}
        numbers |= {0x00209162: part[0], 0x00209163: part[1]}
        longs |= {0x00209228: part[2]}
    spacing = element(0x00280030, "DS", f"{mpp / 1000:.8f}\\{mpp / 1000:.8f}".encode())
    found = {tag: element(tag, vr, text.encode()) for tag, (vr, text) in texts.items()}
    found |= {tag: element(tag, "US", struct.pack("<H", value)) for tag, value in numbers.items()}
    found |= {tag: element(tag, "UL", struct.pack("<I", value)) for tag, value in longs.items()}
    found[0x52009229] = sequence(0x52009229, sequence(0x00289110, spacing))
    if places:
        corners = [
            element(0x0048021E, "SL", struct.pack("<i", x + 1)) + element(0x0048021F, "SL", struct.pack("<i", y + 1))
            for x, y in places
        ]
        found[0x52009230] = sequence(0x52009230, *(sequence(0x0048021A, corner) for corner in corners))
    body = b"".join(found[tag] for tag in sorted(found)) + pixel_data(list(frames))
    path.write_bytes(with_meta(body, syntax=JPEG, uid=uid))
    return path


def assert_shows(path: Path, expected: Pixels, level: int = 0) -> None:
    height, width = expected.shape[:2]
    with open_slide(path) as slide:
        assert slide.info.mpp == pytest.approx(0.5)
        found = slide.read_region(0, 0, level, width, height)
    difference = np.abs(found.astype(int) - expected)
    blocks = difference.reshape(height // 32, 32, width // 32, 32, 3).mean(axis=(1, 3, 4))
    assert blocks.max() < 6  # JPEG alone


def concatenation(folder: Path) -> list[Path]:
    """Level 0 in three files, a level a quarter its size, and label, overview and thumbnail: one series."""
    frames, small = frames_of(RGB, SIDE), shrunk(RGB, 4)
    files = [
        write_file(folder / f"{i}.dcm", (512, 384), frames[5 * i : 5 * i + 5], f"1.2.9.1{i}", part=(i + 1, 3, 5 * i))
        for i in range(3)
    ]
    write_file(folder / "level.dcm", (128, 96), frames_of(small, SIDE), "1.2.9.2", kind=RESAMPLED, mpp=2)
    for i, kind in enumerate(("LABEL", "OVERVIEW", "THUMBNAIL")):
        others = [frames[i]]
        write_file(folder / f"a{i}.dcm", (128, 128), others, f"1.2.9.3{i}", kind=f"ORIGINAL\\PRIMARY\\{kind}\\NONE")
    return files


def test_a_level_in_several_files_is_one_level(tmp_path: Path) -> None:
    files = concatenation(tmp_path / "case")
    for path in (*files, tmp_path / "case" / "level.dcm", tmp_path / "case" / "a0.dcm", tmp_path / "case"):
        assert_shows(path, RGB)
    assert_shows(files[0], shrunk(RGB, 4), level=1)
    assert find_slides([tmp_path]).slides[0][0] == "case"
    assert len(find_slides([tmp_path]).slides) == 1
    files[1].unlink()
    with pytest.raises(SlideError, match="Missing SOP instance 2/3 in concatenation") as caught:
        open_slide(files[0])
    assert "with all its files" in str(caught.value.todo)


def test_sparse_tiles_lie_where_they_say_and_missing_ones_are_white(tmp_path: Path) -> None:
    order = [11, 3, 0, 1, 2, 4, 6, 7, 9, 10]  # 5 and 8 are missing
    frames = frames_of(RGB, SIDE)
    expected = RGB.copy()
    for missing in (5, 8):
        x, y = PLACES[missing]
        expected[y : y + SIDE, x : x + SIDE] = 255
    chosen, places = [frames[i] for i in order], [PLACES[i] for i in order]
    assert_shows(write_file(tmp_path / "s" / "a.dcm", (512, 384), chosen, "1.2.9.1", places=places), expected)
