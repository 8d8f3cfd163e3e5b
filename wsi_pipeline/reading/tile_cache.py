"""Decoded tiles that several patches share, kept from the first that needs one to the last."""

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
"""Decoded tiles held at most for one slide: a row of them across a slide 300,000 pixels wide. Beyond it tiles are
decoded again."""

Pixels = NDArray[np.uint8]
Key = tuple[int, int, int]


class _OwnMemory(threading.local):
    def __init__(self) -> None:
        self.by_shrink: dict[int, Pixels] = {}


class OnceCache:
    """Decodes each tile once and lets go of it at its last use, which is known beforehand.

    tiles   of one level
    uses    shrink -> int (rows, columns): how many patches are going to ask for each tile; counted down here
    limit   bytes; above it the tiles held longest are dropped, to be decoded again

    Safe for several threads: a tile that another thread is decoding is waited for. What a thread is given stays as it
    is until the same thread asks again.
    """

    def __init__(self, tiles: StoredTiles, uses: Mapping[int, NDArray[np.int32]], limit: int = CACHE_BYTES) -> None:
        self._tiles, self._uses, self._limit = tiles, uses, limit
        self._held = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Key, Future[Pixels]] = OrderedDict()
        self._own = _OwnMemory()

    @property
    def held_bytes(self) -> int:
        """What is held now, tiles being decoded included."""
        return self._held

    def get(self, column: int, row: int, shrink: int, out: Pixels | None = None) -> Pixels:
        """One decoded tile, counted as one use of it. Raises SlideError where it does not decode.

        out   where it may be decoded to, if no other patch needs it; the caller looks whether it was
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
            future.cancel()  # where anything else went wrong: nobody may wait for it for ever

    def _size(self, key: Key) -> int:
        return 3 * self._tiles.tile.pixels // key[0] ** 2

    def _own_memory(self, shrink: int) -> Pixels:
        """Where this thread decodes tiles that no other patch needs."""
        by_shrink, tile = self._own.by_shrink, self._tiles.tile
        if shrink not in by_shrink:
            by_shrink[shrink] = np.empty((tile.height // shrink, tile.width // shrink, 3), np.uint8)
        return by_shrink[shrink]
