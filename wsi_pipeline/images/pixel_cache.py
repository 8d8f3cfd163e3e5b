"""A bounded cache of decoded pixels, shared by threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

DEFAULT_BYTES = 512 << 20

Pixels = TypeVar("Pixels", bound="NDArray[np.uint8] | None")


class PixelCache:
    """Keeps the least recently used arrays up to `limit` bytes; each is made once, however many threads ask for it.

    For reads in any order. `reading.tile_cache` serves reads whose order is known: it frees a tile after its last use.
    """

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels:
        """The array stored under `key`, made by `make` if it is not there. Do not write to it.

        Exceptions of `make` are raised here and not remembered. None is a value like any other.
        """
        while True:
            with self._lock:
                future = self._items.get(key)
                if future is None:
                    mine = self._items[key] = Future()
                    break
                self._items.move_to_end(key)
            try:
                found: Pixels = future.result()
            except CancelledError:
                continue  # the thread that was making it failed: try here, to get the error with its own traceback
            return found
        return self._make(key, mine, make)

    def clear(self) -> None:
        """Drop all finished arrays."""
        with self._lock:
            self._items = OrderedDict((key, item) for key, item in self._items.items() if not item.done())
            self._held = 0

    def _make(self, key: Hashable, mine: Future[Any], make: Callable[[], Pixels]) -> Pixels:
        done = False
        try:
            made = make()
            done = True
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
        """Drop the oldest finished arrays; the newest stays even if it alone exceeds the limit."""
        excess, dropped, newest = self._held - self.limit, [], next(reversed(self._items), None)
        for key, future in self._items.items():
            if excess <= 0 or key == newest:
                break
            if future.done():
                dropped.append(key)
                excess -= _size(future)
        for key in dropped:
            self._held -= _size(self._items.pop(key))

    def __reduce__(self) -> tuple[Any, ...]:
        return PixelCache, (self.limit,)  # pickles as an empty cache: other processes read for themselves


def _size(future: Future[Any]) -> int:
    made = future.result()
    return 0 if made is None else int(made.nbytes)
