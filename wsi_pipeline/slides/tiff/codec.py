"""How a slide's pixels are compressed, in words, from its headers alone."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from wsi_pipeline.files.path_choices import split_choice
from wsi_pipeline.slides.tiff.tiff_check import TIFF_MAGIC, compression_of

_TIFF_CODECS = {
    1: "none",
    5: "LZW",
    6: "JPEG (old)",
    7: "JPEG",
    8: "Deflate",
    22610: "JPEG XR",
    32773: "PackBits",
    32946: "Deflate",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG",
    34712: "JPEG 2000",
    34892: "JPEG",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_DICOM_CODECS = {
    "1.2.840.10008.1.2": "none",
    "1.2.840.10008.1.2.1": "none",
    "1.2.840.10008.1.2.4.50": "JPEG",
    "1.2.840.10008.1.2.4.51": "JPEG",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}
_DICOM_META_START = 132
_TRANSFER_SYNTAX = (0x0002, 0x0010)
_LONG_VALUES = {b"OB", b"OW", b"SQ", b"UN", b"UT"}
_MOST_META_ELEMENTS = 64
UNKNOWN = "-"


def codec_of(path: Path) -> str:
    """The codec of a TIFF or DICOM file (`JPEG`, `JPEG 2000`, `compression 52479`); `-` where it is not known.

    For a folder, that of its first DICOM file. Raises OSError where the file cannot be read.
    """
    path = split_choice(path)[0]
    if path.is_dir():
        first = next((file for file in sorted(path.iterdir()) if file.suffix.lower() == ".dcm"), None)
        return codec_of(first) if first is not None and first.is_file() else UNKNOWN
    with path.open("rb") as file:
        magic = file.read(4)
        if magic in TIFF_MAGIC:
            code = compression_of(path)
            return UNKNOWN if code is None else _TIFF_CODECS.get(code, f"compression {code}")
        file.seek(_DICOM_META_START - 4)
        if file.read(4) == b"DICM":
            syntax = _transfer_syntax(file)
            return _DICOM_CODECS.get(syntax, f"transfer syntax {syntax}") if syntax else UNKNOWN
    return UNKNOWN


def _transfer_syntax(file: BinaryIO) -> str:
    """UID of the transfer syntax from the file's meta group (DICOM PS3.10, 7.1: explicit VR, little endian)."""
    for _ in range(_MOST_META_ELEMENTS):
        head = file.read(8)
        if len(head) < 8:
            return ""
        group, element, kind, length = struct.unpack("<HH2sH", head)
        if group != _TRANSFER_SYNTAX[0]:
            return ""
        if kind in _LONG_VALUES:
            word = file.read(4)
            length = struct.unpack("<I", word)[0] if len(word) == 4 else 0
        if (group, element) == _TRANSFER_SYNTAX:
            return file.read(min(length, 64)).decode("ascii", "replace").strip("\0 ")
        file.seek(length, 1)
    return ""
