"""Where the parts of a TIFF file lie, so that they can be damaged one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tifffile

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 256, 257, 258, 259, 262, 270
SAMPLES, TILE_WIDTH, TILE_HEIGHT, SUB_IFDS = 277, 322, 323, 330
OFFSETS, COUNTS = (273, 324), (279, 325)
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Entry:
    """One tag of one directory: where its entry and its values lie, in bytes from the start of the file."""

    tag: int
    kind: int
    count: int
    entry_at: int
    values_at: int

    @property
    def width(self) -> int:
        """Bytes of one value."""
        return TYPE_BYTES.get(self.kind, 1)


@dataclass(frozen=True)
class Layout:
    """The directories of a file: entries, the places of their links to the next, and the stretches of pixel data."""

    big: bool
    order: str
    entries: tuple[Entry, ...]
    next_at: tuple[int, ...]
    directories: tuple[int, ...]
    data: tuple[tuple[int, int], ...]

    @property
    def link_bytes(self) -> int:
        """Width of an offset in the file."""
        return 8 if self.big else 4

    def of(self, *tags: int) -> list[Entry]:
        """Entries of these tags, in the order of the file."""
        return [entry for entry in self.entries if entry.tag in tags]


def layout_of(path: Path) -> Layout:
    """Read the layout of a sound file."""
    raw = path.read_bytes()
    entries: list[Entry] = []
    links, directories, data = [], [], []
    with tifffile.TiffFile(path) as tiff:
        order, big = tiff.byteorder, tiff.is_bigtiff
        pages = [page.aspage() for page in tiff.pages]
        pages += [sub.aspage() for page in pages for sub in (page.pages or [])]
        for page in pages:
            directories.append(page.offset)
            size = 8 if big else 2
            number = int.from_bytes(raw[page.offset : page.offset + size], "little" if order == "<" else "big")
            links.append(page.offset + size + number * (20 if big else 12))
            entries += [
                Entry(tag.code, int(tag.dtype), tag.count, tag.offset, tag.valueoffset) for tag in page.tags.values()
            ]
            data += [(at, n) for at, n in zip(page.dataoffsets, page.databytecounts, strict=True) if at and n]
    return Layout(big, order, tuple(entries), tuple(links), tuple(directories), tuple(data))
