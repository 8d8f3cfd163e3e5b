"""Whether a TIFF file is complete and sane: a walk through its directories, without decoding anything.

OpenSlide ends the whole process if a damaged directory makes it allocate hundreds of gigabytes, so tile
sizes are checked here, before any decoder sees the file.

Layout as in TIFF 6.0 and BigTIFF (8-byte offsets): a chain of directories, each a table of tags; tags 324 and
325 hold where each tile lies and how long it is, 273 and 279 the same for strips.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError

MAX_DIRECTORIES = 4096
MAX_SEGMENT_PIXELS = 1 << 27
"""Largest tile or strip (128 Mpx = 384 MB) that may be decoded whole."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COMPRESSION, _SUB_DIRECTORIES = 259, 330
_STRIPS, _TILES = (273, 279), (324, 325)
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_SAMPLES, _PLANAR, _DEPTH = 277, 284, 32997
_SEPARATE = 2
_UNSIGNED = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
"""TIFF type codes of unsigned integers and of offsets, and their widths in bytes."""


@dataclass(frozen=True)
class _Layout:
    """Byte order and widths of one file: classic TIFF or BigTIFF."""

    order: str
    big: bool
    size: int

    def integers(self, data: bytes, width: int) -> NDArray[np.uint64]:
        return np.frombuffer(data, f"{self.order}u{width}").astype(np.uint64)

    @property
    def entry(self) -> np.dtype[np.void]:
        word = f"{self.order}u{8 if self.big else 4}"
        return np.dtype([("tag", f"{self.order}u2"), ("type", f"{self.order}u2"), ("count", word), ("value", word)])


def check_complete(path: Path) -> None:
    """Raise SlideError (`truncated TIFF: ...`) if directories, tiles or strips lie beyond the end of the file.

    Directories that form a loop are refused too: readers would follow them for ever.
    """
    with path.open("rb") as file:
        layout, offset = _open(file, path)
        seen, subs = set[int](), list[int]()
        _check_chain(file, layout, offset, seen, subs)
        while subs:
            _check_chain(file, layout, subs.pop(), seen, subs)
        if not seen:
            raise SlideError("TIFF without any image", todo="Copy the file again from its source.")


def _check_chain(file: BinaryIO, layout: _Layout, offset: int, seen: set[int], subs: list[int]) -> None:
    """Check a directory and those that follow it; their sub-directories are added to `subs`."""
    chain = set[int]()
    while offset and not (offset in seen and offset not in chain):
        if offset in chain or len(seen) == MAX_DIRECTORIES:
            raise _damaged(
                "its directories form a loop" if offset in chain else f"more than {MAX_DIRECTORIES} directories"
            )
        chain.add(offset)
        seen.add(offset)
        entries, following = _read_directory(file, layout, offset, len(seen) - 1)
        _check_directory(file, layout, entries, len(seen) - 1)
        found = _values(file, layout, entries, _SUB_DIRECTORIES, len(seen) - 1)
        subs.extend([] if found is None else [int(sub) for sub in found[:MAX_DIRECTORIES]])
        offset = following


def compression_of(path: Path) -> int | None:
    """The compression tag of the first directory; None if there is none. Raises SlideError as `check_complete`."""
    with path.open("rb") as file:
        layout, offset = _open(file, path)
        entries, _ = _read_directory(file, layout, offset, 0)
        values = _values(file, layout, entries, _COMPRESSION, 0)
        return int(values[0]) if values is not None and len(values) else None


def _open(file: BinaryIO, path: Path) -> tuple[_Layout, int]:
    """Layout of the file and offset of its first directory."""
    magic = file.read(4)
    layout = _Layout("<" if magic[:1] == b"I" else ">", b"+" in magic, path.stat().st_size)
    file.seek(8 if layout.big else 4)
    return layout, _next(file, layout)


def _check_directory(file: BinaryIO, layout: _Layout, entries: NDArray[np.void], index: int) -> None:
    """Check one directory and what it points to."""
    _check_tile_size(file, layout, entries, index)
    for tags in (_TILES, _STRIPS):
        _check_segments(file, layout, entries, tags, index)


def _read_directory(file: BinaryIO, layout: _Layout, offset: int, index: int) -> tuple[NDArray[np.void], int]:
    """The entries of one directory and the offset of the next."""
    _require(layout, offset + (8 if layout.big else 2), f"directory {index}", offset)
    file.seek(offset)
    width = 8 if layout.big else 2
    count = int(layout.integers(file.read(width), width)[0])
    end = offset + width + count * layout.entry.itemsize
    _require(layout, end + (8 if layout.big else 4), f"directory {index}", offset)
    entries = np.frombuffer(file.read(count * layout.entry.itemsize), layout.entry)
    return entries, _next(file, layout)


def _check_tile_size(file: BinaryIO, layout: _Layout, entries: NDArray[np.void], index: int) -> None:
    width, height = (_values(file, layout, entries, tag, index) for tag in (_TILE_WIDTH, _TILE_HEIGHT))
    if width is None and height is None:
        return
    sizes = [int(side[0]) if side is not None and len(side) == 1 else 0 for side in (width, height)]
    if not 0 < sizes[0] * sizes[1] <= MAX_SEGMENT_PIXELS:
        raise SlideError(
            f"TIFF image {index} has tiles of {sizes[0]} x {sizes[1]} pixels, the limit is {MAX_SEGMENT_PIXELS}",
            todo="The file is damaged or unusual; copy it again, or convert it to a tiled pyramid TIFF.",
        )


def _check_segments(
    file: BinaryIO, layout: _Layout, entries: NDArray[np.void], tags: tuple[int, int], index: int
) -> None:
    offsets, counts = (_values(file, layout, entries, tag, index) for tag in tags)
    if offsets is None or counts is None:
        odd = [
            tag for tag, found in zip(tags, (offsets, counts), strict=True) if found is None and tag in entries["tag"]
        ]
        if odd:
            raise _damaged(f"tag {odd[0]} of image {index} does not hold integers")
        return
    if len(offsets) != len(counts):
        raise _damaged(f"image {index} lists {len(offsets)} offsets but {len(counts)} lengths")
    # Some writers overstate the length of the last strip, so for strips only the start must exist.
    # Lengths are capped so that their sum with an offset does not pass 64 bits.
    ends = offsets + np.minimum(counts, layout.size + 1 if tags == _TILES else 1)
    beyond = (ends > layout.size) | (offsets > layout.size)
    there = (counts > 0) & (offsets > 0)
    kind = "tiles" if tags == _TILES else "strips"
    if (beyond & there).any():
        missing = int(np.count_nonzero(beyond & there))
        raise _truncated(f"{missing} of {len(offsets)} {kind} of image {index} lie beyond its {layout.size} bytes")
    if index == 0 and not there.any():
        raise _damaged(f"none of the {len(offsets)} {kind} of image 0 holds data")
    if tags == _TILES:
        _check_tile_count(file, layout, entries, len(offsets), index)


def _check_tile_count(file: BinaryIO, layout: _Layout, entries: NDArray[np.void], listed: int, index: int) -> None:
    """TIFF 6.0, section 15: an image lists all its tiles, row by row, for each of its planes.

    If the count is wrong, the stated width is wrong and tiles would land in the wrong places.
    """

    def value(tag: int, otherwise: int) -> int:
        found = _values(file, layout, entries, tag, index)
        return int(found[0]) if found is not None and len(found) else otherwise

    width, height, tile_width, tile_height = (value(tag, 0) for tag in (_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT))
    if not width or not height or not tile_width or not tile_height:
        raise _damaged(f"image {index} is declared as {width} x {height} pixels")
    planes = value(_SAMPLES, 1) if value(_PLANAR, 1) == _SEPARATE else 1
    needed = -(-width // tile_width) * -(-height // tile_height) * planes * max(1, value(_DEPTH, 1))
    if listed != needed:
        raise _damaged(f"image {index} ({width} x {height} pixels) needs {needed} tiles but lists {listed}")


def _values(
    file: BinaryIO, layout: _Layout, entries: NDArray[np.void], tag: int, index: int
) -> NDArray[np.uint64] | None:
    """The integers of one tag, or None if the directory lacks it or holds another type."""
    found = entries[entries["tag"] == tag]
    if not len(found) or int(found[0]["type"]) not in _UNSIGNED:
        return None
    width, count = _UNSIGNED[int(found[0]["type"])], int(found[0]["count"])
    if count * width <= (8 if layout.big else 4):
        # Bytes of an array, not of its element, which numpy turns into the machine's own order.
        return layout.integers(found["value"][:1].tobytes()[: count * width], width)
    offset = int(found[0]["value"])
    _require(layout, offset + count * width, f"tag {tag} of image {index}", offset)
    file.seek(offset)
    return layout.integers(file.read(count * width), width)


def _next(file: BinaryIO, layout: _Layout) -> int:
    width = 8 if layout.big else 4
    data = file.read(width)
    if len(data) < width:
        raise _truncated(f"the file ends in its header at {layout.size} bytes")
    return int(layout.integers(data, width)[0])


def _require(layout: _Layout, end: int, what: str, offset: int) -> None:
    if end > layout.size:
        raise _truncated(f"{what} should be at byte {offset} but the file ends at {layout.size}")


def _truncated(why: str) -> SlideError:
    return SlideError(f"truncated TIFF: {why}", todo="Copy the file again from its source.")


def _damaged(why: str) -> SlideError:
    return SlideError(f"damaged TIFF: {why}", todo="Copy the file again from its source.")
