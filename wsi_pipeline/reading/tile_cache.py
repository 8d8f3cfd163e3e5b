"""Decoded tiles shared by several patches, kept from their first use to their last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.slide import StoredTiles

CACHE_BYTES = 256 << 20
"""Most memory for the decoded tiles of one slide: a row of tiles across a slide 300,000 pixels wide. Beyond it, tiles
are decoded again."""

Pixels = NDArray[np.uint8]
Key = tuple[int, int, int]


class _OwnMemory(threading.local):
    def __init__(self) -> None:
        self.by_shrink: dict[int, Pixels] = {}


class OnceCache:
    """Decodes each tile once and frees it after its last use, which is known beforehand.

    tiles   of one level
    uses    shrink -> int (rows, columns): how many patches will ask for each tile; counted down here
    limit   bytes; above it the oldest tiles are dropped and decoded again if needed

    Safe for several threads, which wait for a tile that another one is decoding. The returned array stays valid
    until the same thread asks again.
    """

    def __init__(self, tiles: StoredTiles, uses: Mapping[int, NDArray[np.int32]], limit: int = CACHE_BYTES) -> None:
        self._tiles, self._uses, self._limit = tiles, uses, limit
        self._held = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Key, Future[Pixels]] = OrderedDict()
        self._own = _OwnMemory()

    @property
    def held_bytes(self) -> int:
        """Bytes held now, tiles being decoded included."""
        return self._held

    def get(self, column: int, row: int, shrink: int, out: Pixels | None = None) -> Pixels:
        """One decoded tile, counted as one use of it. Raises SlideError if it does not decode.

        out   memory to decode into if no other patch needs the tile; the caller checks whether it was used
        """
        key, uses = (shrink, row, column), self._uses[shrink]
        with self._lock:
            uses[row, column] -= 1
            again, there = uses[row, column] > 0, self._items.get(key)
            future = there or (self._hold(key) if again else None)
            if there and not again:
                self._release(key)
        if future is None:
            return self._tiles.decode(column, row, shrink, self._own_memory(shrink) if out is None else out)
        if there is None:
            self._decode(future, key)
        return future.result()

    def _hold(self, key: Key) -> Future[Pixels]:
        future = self._items[key] = Future()
        self._held += self._size(key)
        while self._held > self._limit and len(self._items) > 1:
            self._release(next(iter(self._items)))
        return future

    def _release(self, key: Key) -> None:
        del self._items[key]
        self._held -= self._size(key)

    def _decode(self, future: Future[Pixels], key: Key) -> None:
        shrink, row, column = key
        try:
            future.set_result(self._tiles.decode(column, row, shrink))
        except SlideError as error:
            future.set_exception(error)
        finally:
            future.cancel()  # on any other error: no thread may wait for ever

    def _size(self, key: Key) -> int:
        return 3 * self._tiles.tile.pixels // key[0] ** 2

    def _own_memory(self, shrink: int) -> Pixels:
        """This thread's buffer for tiles that no other patch needs."""
        by_shrink, tile = self._own.by_shrink, self._tiles.tile
        if shrink not in by_shrink:
            by_shrink[shrink] = np.empty((tile.height // shrink, tile.width // shrink, 3), np.uint8)
        return by_shrink[shrink]
