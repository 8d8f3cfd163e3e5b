"""The first elements of a DICOM file: what it is, and to which series it belongs.

Only the few elements that group files into slides are read (DICOM PS3.5, chapter 7: data elements; PS3.10: file meta
information), no pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PREAMBLE, _MAGIC = 128, b"DICM"
_HEADS = (1 << 15, 1 << 20)
"""Bytes read: the elements come early, except in files with long private elements."""
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""SOP class VL Whole Slide Microscopy Image Storage."""
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".2", ".1.99"))
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_TRANSFER_SYNTAX, _META_CLASS, _IMAGE_TYPE, _SOP_CLASS = 0x00020010, 0x00020002, 0x00080008, 0x00080016
_PYRAMID, _SERIES, _COLUMNS, _ROWS = 0x00080019, 0x0020000E, 0x00480006, 0x00480007
_META, _LAST = 2, _ROWS
_MOST_NESTED = 16


@dataclass(frozen=True)
class DicomHeader:
    """One file: SOP class, series, image type (VOLUME, LABEL, ...) and the size of the whole pixel matrix.

    Texts are empty and numbers 0 if the file does not state them or cannot be parsed that far.

    pyramid           unique id of the pyramid that a level belongs to, if stated
    transfer_syntax   UID of the pixel encoding
    """

    sop_class: str
    series: str
    pyramid: str
    image_type: tuple[str, ...]
    width: int
    height: int
    transfer_syntax: str

    @property
    def is_slide(self) -> bool:
        """Whether it is part of a whole slide: a level, label or overview."""
        return self.sop_class == WHOLE_SLIDE

    @property
    def is_level(self) -> bool:
        """Whether it is a level of the pyramid, not its label, overview or thumbnail."""
        return self.is_slide and not {"LABEL", "OVERVIEW", "LOCALIZER", "THUMBNAIL"} & set(self.image_type)


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def read_dicom_header(path: Path) -> DicomHeader | None:
    """The header of a DICOM file; None for other files.

    Raises OSError if it cannot be read.
    """
    for length in _HEADS:
        with path.open("rb") as file:
            head = file.read(length)
        if head[_PREAMBLE : _PREAMBLE + len(_MAGIC)] != _MAGIC:
            return None
        found, complete = _read(head)
        if complete or len(head) < length:
            break
    return DicomHeader(
        sop_class=_text(found.get(_SOP_CLASS, found.get(_META_CLASS, b""))),
        series=_text(found.get(_SERIES, b"")),
        pyramid=_text(found.get(_PYRAMID, b"")),
        image_type=tuple(_text(found.get(_IMAGE_TYPE, b"")).split("\\")),
        width=_number(found.get(_COLUMNS, b"")),
        height=_number(found.get(_ROWS, b"")),
        transfer_syntax=_text(found.get(_TRANSFER_SYNTAX, b"")),
    )


def _read(head: bytes) -> tuple[dict[int, bytes], bool]:
    """The requested elements, little-endian numbers, and whether all possible ones have been seen."""
    wanted = {_IMAGE_TYPE, _SOP_CLASS, _PYRAMID, _SERIES, _COLUMNS, _ROWS}
    found: dict[int, bytes] = {}
    position, syntax = _PREAMBLE + len(_MAGIC), ""
    try:
        for tag, start, length, _ in _elements(head, position, explicit=True, order="<", group=_META):
            found[tag] = head[start : start + length]
            position = start + length
        syntax = _text(found.get(_TRANSFER_SYNTAX, b""))
        if syntax == _DEFLATED:
            return found, True
        order = ">" if syntax == _BIG_ENDIAN else "<"
        for tag, start, length, _ in _elements(head, position, explicit=syntax != _IMPLICIT, order=order):
            if tag > _LAST:
                return found, True
            if tag in wanted:
                value = head[start : start + length]
                found[tag] = value[::-1] if order == ">" and tag in (_COLUMNS, _ROWS) else value
    except (struct.error, _OddError):
        return found, False
    return found, _ROWS in found


class _OddError(Exception):
    """Raised when an element extends beyond the bytes read."""


def _elements(
    data: bytes, position: int, *, explicit: bool, order: str, depth: int = 0, group: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Tag, start and length of the value, and end of each element at one level of nesting; of one group, if named."""
    while position < len(data):
        of_group, number = struct.unpack_from(f"{order}HH", data, position)
        if group is not None and of_group != group:
            return
        tag, kind = of_group << 16 | number, b""
        if tag in (_ITEM, _ITEM_END, _SEQUENCE_END) or not explicit:
            (length,), start = struct.unpack_from(f"{order}I", data, position + 4), position + 8
        elif (kind := data[position + 4 : position + 6]) in _LONG:
            (length,), start = struct.unpack_from(f"{order}I", data, position + 8), position + 12
        else:
            (length,), start = struct.unpack_from(f"{order}H", data, position + 6), position + 8
        end = start + length
        if length == _UNDEFINED:
            end = _end_of(data, start, explicit=explicit and kind != b"UN", order=order, depth=depth + 1)
        if start + (0 if length == _UNDEFINED else length) > len(data):
            raise _OddError
        yield tag, start, end - start, end
        position = end


def _end_of(data: bytes, position: int, *, explicit: bool, order: str, depth: int) -> int:
    """Where a sequence or an item of undefined length ends."""
    if depth > _MOST_NESTED:
        raise _OddError
    for tag, _, _, end in _elements(data, position, explicit=explicit, order=order, depth=depth):
        if tag in (_ITEM_END, _SEQUENCE_END):
            return end
    raise _OddError


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _number(value: bytes) -> int:
    return int.from_bytes(value[:4], "little")
