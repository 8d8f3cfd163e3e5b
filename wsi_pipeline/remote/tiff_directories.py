"""The bytes of a TIFF file that are not pixels: its directories and the values of their tags.

Layout as in TIFF 6.0 and BigTIFF. Nothing is judged here: what does not fit into the file is left out, and whoever
reads the directories reports it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from wsi_pipeline.remote.coalesce import Range
from wsi_pipeline.remote.remote_file import RemoteFile

MAX_DIRECTORIES = 4096
DIRECTORY_BYTES = 8 << 10
"""Read of a directory at a time: most have about 20 tags of 12 or 20 bytes, and short values behind them."""

_SUB_DIRECTORIES = (330, 34665, 34853, 40965)
"""SubIFDs and the private directories of Exif."""
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_OFFSETS = {4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class _Layout:
    """Byte order and the widths of classic TIFF or BigTIFF."""

    order: str
    big: bool

    def unpack(self, code: str, data: bytes, at: int = 0) -> tuple[int, ...]:
        return struct.unpack_from(self.order + code, data, at)

    @property
    def word(self) -> str:
        return "Q" if self.big else "I"


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins like this is TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def directory_ranges(file: RemoteFile) -> list[Range]:
    """Where the directories of a TIFF file and their values lie, header included; read on the way."""
    head = file.read(0, 16)
    if len(head) < 16:
        return [(0, len(head))]
    layout = _Layout("<" if head[:1] == b"I" else ">", b"+" in head[:4])
    (first,) = layout.unpack(layout.word, head, 8 if layout.big else 4)
    found: list[Range] = [(0, 16)]
    pending, seen = [first], set[int]()
    while pending:
        chains, values = pending, list[Range]()
        subs: list[tuple[int, str, int]] = []
        for offset in chains:
            while offset and offset not in seen and len(seen) < MAX_DIRECTORIES and offset < file.size:
                seen.add(offset)
                span, offset = _directory(file, layout, offset, values, subs)
                found.append(span)
        file.read_many(values)
        found += values
        pending = [offset for sub in subs for offset in _pointers(file, layout, *sub)]
    return found


def _directory(
    file: RemoteFile, layout: _Layout, offset: int, values: list[Range], subs: list[tuple[int, str, int]]
) -> tuple[Range, int]:
    """The range of one directory and the offset of the next (0: none); values that lie elsewhere are added."""
    counter, entry = ("Q", 20) if layout.big else ("H", 12)
    width, word = struct.calcsize(counter), 8 if layout.big else 4
    block = file.read(offset, DIRECTORY_BYTES)
    if len(block) < width:
        return (offset, offset + len(block)), 0
    (count,) = layout.unpack(counter, block)
    length = width + count * entry + word
    if offset + length > file.size:
        return (offset, offset + len(block)), 0
    if length > len(block):
        block = file.read(offset, length)
    for at in range(width, width + count * entry, entry):
        tag, kind = layout.unpack("HH", block, at)
        (number,) = layout.unpack(layout.word, block, at + 4)
        size = _WIDTHS.get(kind, 0) * number
        inside = size <= word
        where = offset + at + 4 + word if inside else layout.unpack(layout.word, block, at + 4 + word)[0]
        if not inside and where + size <= file.size:
            values.append((where, where + size))
        if tag in _SUB_DIRECTORIES and kind in _OFFSETS and number <= MAX_DIRECTORIES and where + size <= file.size:
            subs.append((where, _OFFSETS[kind], number))
    (following,) = layout.unpack(layout.word, block, length - word)
    return (offset, offset + length), following


def _pointers(file: RemoteFile, layout: _Layout, where: int, code: str, number: int) -> tuple[int, ...]:
    return layout.unpack(f"{number}{code}", file.read(where, number * struct.calcsize(code)))
