"""Decoded TIFF segments (tiles or strips): a bounded cache, and one image read piece by piece through it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.white import white
from wsi_pipeline.slides.tiff.decode import DECODE_ERRORS, Pixels, decoder_of, segment_size


class SegmentCache:
    """Least recently used decoded segments up to `limit_bytes`; each is decoded once however many threads ask."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, Future[Pixels | None]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Pixels | None]) -> Pixels | None:
        """The segment filed under `key`, made by `make` on a miss; passes on what `make` raises."""
        while True:
            with self._lock:
                future = self._items.get(key)
                if future is None:
                    mine = self._items[key] = Future()
                    break
                self._items.move_to_end(key)
            try:
                return future.result()
            except CancelledError:
                continue  # the thread that was making it failed: meet the error here, with its own traceback
        return self._make(key, mine, make)

    def _make(self, key: Hashable, mine: Future[Pixels | None], make: Callable[[], Pixels | None]) -> Pixels | None:
        made, done = None, False
        try:
            made, done = make(), True
        finally:
            if not done:
                with self._lock:
                    self._items.pop(key, None)
                mine.cancel()
        mine.set_result(made)
        with self._lock:
            self._held += _size(mine)
            self._drop_oldest()
        return made

    def _drop_oldest(self) -> None:
        """Forget the oldest finished segments; the newest stays even where it alone exceeds the limit."""
        for key, future in list(self._items.items())[:-1]:
            if self._held <= self._limit:
                return
            if future.done():
                del self._items[key]
                self._held -= _size(future)

    def clear(self) -> None:
        """Forget everything that is decoded."""
        with self._lock:
            self._items = OrderedDict((key, item) for key, item in self._items.items() if not item.done())
            self._held = 0


def _size(future: Future[Pixels | None]) -> int:
    made = future.result()
    return 0 if made is None else made.nbytes


class SegmentedImage:
    """One TIFF image read segment by segment.

    page     tifffile's page: grid, offsets and codec
    load     bytes of (offset, count) of the file
    to_rgb   stored samples (h, w, s) to RGB (h, w, 3)
    cache    decoded segments, shared by the levels of a slide
    level    its number, for the cache and for messages
    plane    which of the page's separate colour planes
    """

    def __init__(
        self,
        page: Any,
        load: Callable[[int, int], bytes],
        to_rgb: Callable[[Pixels], Pixels],
        cache: SegmentCache,
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
        image = white(box.width, box.height)
        step = self.segment
        for row in range(box.y // step.height, (box.bottom - 1) // step.height + 1):
            for column in range(box.x // step.width, (box.right - 1) // step.width + 1):
                found = self._cache.get((*self._key, row, column), partial(self._rgb, row, column))
                if found is not None:
                    paste(image, box, found, column * step.width, row * step.height)
        return image

    def _rgb(self, row: int, column: int) -> Pixels | None:
        """Decoded RGB (h, w, 3) of one segment, or None where the file holds none."""
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


def paste(image: Pixels, box: Box, found: Pixels, left: int, top: int) -> None:
    """Copy the part of a segment whose corner is at (left, top) that lies in the box."""
    height, width = found.shape[:2]
    common = Box(left - box.x, top - box.y, width, height).clipped(Size(box.width, box.height))
    if common is None:
        return
    x, y = common.x + box.x - left, common.y + box.y - top
    image[common.y : common.bottom, common.x : common.right] = found[y : y + common.height, x : x + common.width]
