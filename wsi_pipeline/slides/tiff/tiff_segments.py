"""One TIFF image, read segment by segment (tiles or strips) through a cache of decoded segments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.pixel_cache import PixelCache
from wsi_pipeline.images.white import white
from wsi_pipeline.slides.tiff.decode import DECODE_ERRORS, Pixels, decoder_of, segment_size


class SegmentedImage:
    """One TIFF image read segment by segment.

    page     tifffile's page: grid, offsets and codec
    load     bytes of (offset, count) of the file
    to_rgb   stored samples (h, w, s) to RGB (h, w, 3)
    cache    decoded segments, shared by the levels of a slide
    level    its number, for the cache and for messages
    plane    number of the separate colour plane
    """

    def __init__(
        self,
        page: Any,
        load: Callable[[int, int], bytes],
        to_rgb: Callable[[Pixels], Pixels],
        cache: PixelCache,
        level: int,
        plane: int = 0,
    ) -> None:
        self._page, self._load, self._to_rgb, self._cache, self._level = page, load, to_rgb, cache, level
        self.size = Size(int(page.imagewidth), int(page.imagelength))
        self.segment = segment_size(page)
        self._columns = -(-self.size.width // self.segment.width)
        self._first = plane * self._columns * -(-self.size.height // self.segment.height)
        self._key = (page.offset, level, plane)
        self._decode = decoder_of(page)

    def read(self, box: Box) -> Pixels:
        """RGB pixels of a box that lies inside the image; missing segments are white."""

        def segment(row: int, column: int) -> Pixels | None:
            return self._cache.get((*self._key, row, column), partial(self._rgb, row, column))

        return joined(box, box, self.segment, segment)

    def _rgb(self, row: int, column: int) -> Pixels | None:
        """Decoded RGB (h, w, 3) of one segment, or None if the file holds none."""
        index, page = self._first + row * self._columns + column, self._page
        if index >= min(len(page.dataoffsets), len(page.databytecounts)):
            raise self._damaged(row, column, "the TIFF directory does not list it")
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not offset or not count:
            return None
        data = self._load(offset, count)
        if len(data) < count:
            raise self._damaged(row, column, "the file ends before it")
        try:
            return self._to_rgb(self._decode(data, index))
        except DECODE_ERRORS as error:
            raise self._damaged(row, column, " ".join(str(error).split()) or type(error).__name__) from error

    def _damaged(self, row: int, column: int, why: str) -> SlideError:
        x, y = column * self.segment.width, row * self.segment.height
        kind = "tile" if self._page.is_tiled else "strip"
        return SlideError(
            f"{kind} at ({x}, {y}) of level {self._level} does not decode: {why}",
            todo="The file is damaged there; copy it again from its source.",
        )


def joined(box: Box, inside: Box | None, segment: Size, get: Callable[[int, int], Pixels | None]) -> Pixels:
    """The pixels of `box`, pasted from the segments below it; white if there are none.

    inside    the part of the box inside the image; None if there is none
    segment   size of every segment; the first one's corner is at (0, 0)
    get       (row, column) -> the decoded segment, or None if the file has none there
    """
    image = white(box.width, box.height)
    if inside is None:
        return image
    for row in range(inside.y // segment.height, (inside.bottom - 1) // segment.height + 1):
        for column in range(inside.x // segment.width, (inside.right - 1) // segment.width + 1):
            found = get(row, column)
            if found is not None:
                _paste(image, box, found, column * segment.width, row * segment.height)
    return image


def _paste(image: Pixels, box: Box, found: Pixels, left: int, top: int) -> None:
    """Copy the part of a segment with its corner at (left, top) that lies in the box."""
    height, width = found.shape[:2]
    common = Box(left - box.x, top - box.y, width, height).clipped(Size(box.width, box.height))
    if common is None:
        return
    x, y = common.x + box.x - left, common.y + box.y - top
    image[common.y : common.bottom, common.x : common.right] = found[y : y + common.height, x : x + common.width]
