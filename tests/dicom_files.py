"""A writer of small DICOM whole-slide images: one file a level, JPEG frames in a full grid (DICOM PS3.3 A.32.8)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from tests.slide_files import Pixels, shrunk

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
ANNOTATIONS = "1.2.840.10008.5.1.4.1.1.91.1"
JPEG, EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_LONG = {"OB", "SQ", "UN"}


def element(tag: int, kind: str, value: bytes, *, implicit: bool = False, undefined: bool = False) -> bytes:
    """One data element, its value filled to an even length."""
    value += (b"\0" if kind in ("UI", "OB") else b" ") * (len(value) % 2)
    length = 0xFFFFFFFF if undefined else len(value)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", length) + value
    middle = struct.pack("<xxI", length) if kind in _LONG else struct.pack("<H", length)
    return head + kind.encode() + middle + value


def sequence(tag: int, *items: bytes, implicit: bool = False) -> bytes:
    """A sequence whose items and end are marked, as most writers make them."""
    inner = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        for item in items
    )
    return element(tag, "SQ", inner + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), implicit=implicit, undefined=True)


def with_meta(body: bytes, *, syntax: str = EXPLICIT, sop_class: str = WHOLE_SLIDE, uid: str = "1.2.3.4") -> bytes:
    """A DICOM file: preamble, file meta information, data set."""
    meta = (
        element(0x00020001, "OB", b"\0\1")
        + element(0x00020002, "UI", sop_class.encode())
        + element(0x00020003, "UI", uid.encode())
        + element(0x00020010, "UI", syntax.encode())
    )
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + body


def write_dicom_slide(
    folder: Path,
    rgb: Pixels,
    series: str,
    names: Sequence[str],
    *,
    mpp: float = 0.5,
    frame: int = 128,
    pyramid: str = "",
) -> list[Path]:
    """One series: a file of each name, each level a quarter of the one before; `pyramid` is its unique id, if any."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, name in enumerate(names):
        level = rgb if number == 0 else shrunk(rgb, 4**number)
        body = _level(level, series, f"{series}.{number + 1}", mpp * 4**number, frame, number, pyramid)
        paths.append(folder / name)
        paths[-1].write_bytes(with_meta(body, syntax=JPEG, uid=f"{series}.{number + 1}"))
    return paths


def _level(rgb: Pixels, series: str, uid: str, mpp: float, frame: int, number: int, pyramid: str) -> bytes:
    height, width = rgb.shape[:2]
    frames = frames_of(rgb, frame)
    kind = "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if number == 0 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
    spacing = element(0x00280030, "DS", f"{mpp / 1000:.8f}\\{mpp / 1000:.8f}".encode())
    measures = sequence(0x00289110, spacing)
    shared = sequence(0x52009229, measures)
    return b"".join(
        (
            element(0x00080008, "CS", kind.encode()),
            element(0x00080016, "UI", WHOLE_SLIDE.encode()),
            element(0x00080018, "UI", uid.encode()),
            element(0x00080019, "UI", pyramid.encode()) if pyramid else b"",
            element(0x00080060, "CS", b"SM"),
            sequence(0x00081111, element(0x00081150, "UI", b"1.2.3")),
            element(0x0020000D, "UI", b"1.2.3.5"),
            element(0x0020000E, "UI", series.encode()),
            element(0x00209311, "CS", b"TILED_FULL"),
            element(0x00280002, "US", struct.pack("<H", 3)),
            element(0x00280004, "CS", b"YBR_FULL_422"),
            element(0x00280006, "US", struct.pack("<H", 0)),
            element(0x00280008, "IS", str(len(frames)).encode()),
            element(0x00280010, "US", struct.pack("<H", frame)),
            element(0x00280011, "US", struct.pack("<H", frame)),
            element(0x00280100, "US", struct.pack("<H", 8)),
            element(0x00280101, "US", struct.pack("<H", 8)),
            element(0x00280102, "US", struct.pack("<H", 7)),
            element(0x00280103, "US", struct.pack("<H", 0)),
            element(0x00480006, "UL", struct.pack("<I", width)),
            element(0x00480007, "UL", struct.pack("<I", height)),
            element(0x00480302, "UL", struct.pack("<I", 1)),
            element(0x00480303, "UL", struct.pack("<I", 1)),
            shared,
            pixel_data(frames),
        )
    )


def frames_of(rgb: Pixels, side: int) -> list[bytes]:
    """JPEG frames of a full grid, row by row, white beyond the picture."""
    height, width = rgb.shape[:2]
    made = []
    for y in range(0, height, side):
        for x in range(0, width, side):
            full = np.full((side, side, 3), 255, np.uint8)
            part = rgb[y : y + side, x : x + side]
            full[: part.shape[0], : part.shape[1]] = part
            made.append(simplejpeg.encode_jpeg(full, quality=95, colorsubsampling="422"))
    return made


def pixel_data(frames: list[bytes]) -> bytes:
    """Encapsulated pixel data with an empty offset table."""

    def item(value: bytes) -> bytes:
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value

    filled = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    value = item(b"") + b"".join(map(item, filled)) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return element(0x7FE00010, "OB", value, undefined=True)
