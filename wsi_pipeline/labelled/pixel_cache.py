"""A bounded memory of decoded pixels, least recently used first out; safe for threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_BYTES = 512 << 20


class PixelCache:
    """Keeps arrays up to `limit` bytes in all; what is larger than that is never kept."""

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self.limit = limit
        self._held = 0
        self._items: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: int, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The array of `key`, made where it is not there. Do not write to it."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        array = make()  # outside the lock: others go on reading
        with self._lock:
            if key not in self._items and array.nbytes <= self.limit:
                self._items[key] = array
                self._held += array.nbytes
                while self._held > self.limit:
                    self._held -= self._items.popitem(last=False)[1].nbytes
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return PixelCache, (self.limit,)  # other processes begin with an empty one
