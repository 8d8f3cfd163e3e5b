"""JPEG streams from TIFF tiles, turned into JPEG files that any decoder reads with the right colours.

In a TIFF the quantisation and Huffman tables may lie once for all tiles (tag 347), and the colours are what the
photometric tag says (TIFF Technical Note 2), whatever the stream claims. Decoders of files go by the JFIF and Adobe
markers instead (ITU-T T.871; T.872 section 6.5.3), so those are replaced by one Adobe marker that agrees with the tag.
"""

from __future__ import annotations

RGB_TRANSFORM, YCBCR_TRANSFORM = 0, 1

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
_APP0, _APP14, _SOS = 0xE0, 0xEE, 0xDA
_SOF = frozenset({0xC0, 0xC1, 0xC2})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def adobe_marker(transform: int) -> bytes:
    """The APP14 marker segment that tells decoders whether colours are RGB (0) or YCbCr (1)."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def head_of(tables: bytes | None, transform: int) -> bytes:
    """The common start of every stream of a level: SOI, the Adobe marker and the shared tables (tag 347).

    Raises ValueError if the tables are not an abbreviated JPEG stream.
    """
    if not tables:
        return _SOI + adobe_marker(transform)
    if not tables.startswith(_SOI):
        raise ValueError("JPEG tables do not begin with the SOI marker")
    end = tables.rfind(_EOI)
    return _SOI + adobe_marker(transform) + tables[len(_SOI) : end if end > 0 else None]


def whole(head: bytes, stream: bytes) -> bytes:
    """One tile's stream as a file: `head` before it, without its own SOI, JFIF and Adobe markers.

    Raises ValueError if the markers before the scan cannot be followed.
    """
    if not stream.startswith(_SOI):
        raise ValueError("a JPEG stream begins with the SOI marker")
    parts, kept, at = [head], len(_SOI), len(_SOI)
    while True:
        code, end = _segment(stream, at)
        if code in (_APP0, _APP14):
            parts.append(stream[kept:at])
            kept = end
        elif code == _SOS:
            parts.append(stream[kept:])
            return b"".join(parts)
        at = end


def chroma_step(stream: bytes) -> tuple[int, int]:
    """How many pixels across and down one sample of the coarsest component spans, from the frame header.

    Raises ValueError if the stream has none in its first marker segments.
    """
    at = len(_SOI)
    while True:
        code, end = _segment(stream, at)
        if code in _SOF and end <= len(stream):
            factors = stream[at + 11 : end : 3]
            across, down = [byte >> 4 for byte in factors], [byte & 15 for byte in factors]
            if not factors or min(across) < 1 or min(down) < 1:
                raise ValueError("a JPEG frame without sampling factors")
            return max(across) // min(across), max(down) // min(down)
        if code == _SOS:
            raise ValueError("a JPEG scan without a frame before it")
        at = end


def _segment(stream: bytes, at: int) -> tuple[int, int]:
    """(marker code, end) of the marker segment at `at`."""
    if at + 4 > len(stream) or stream[at] != 0xFF:
        raise ValueError(f"no JPEG marker at byte {at}")
    code = stream[at + 1]
    if code == 0xFF:  # a fill byte
        return code, at + 1
    return code, at + 2 if code in _STANDALONE else at + 2 + max(2, int.from_bytes(stream[at + 2 : at + 4], "big"))
