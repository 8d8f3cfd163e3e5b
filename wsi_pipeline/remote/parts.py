"""The parts of one remote file that are known: in memory, on the way, or in the cache on disk."""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

MEMORY_BYTES = 96 << 20
"""Most bytes of one file kept in memory; more than FetchAhead's window, so that nothing is dropped before its use."""
_LOOK_BACK = 6
"""Parts rarely overlap: one that covers a range begins at most a few parts before it."""


@dataclass(eq=False)
class Part:
    """Bytes `start` to `stop`; `data` is None if they are only on disk."""

    start: int
    stop: int
    data: Future[bytes] | None
    on_disk: bool = False


class Parts:
    """Finds the part that covers a range; drops the least recently used bytes from memory. For several threads."""

    def __init__(self, on_disk: Iterable[tuple[int, int]] = (), limit: int = MEMORY_BYTES) -> None:
        self.lock = threading.RLock()
        self._limit, self._held = limit, 0
        self._parts: dict[tuple[int, int], Part] = {}
        self._order: list[tuple[int, int]] = []
        self._recent: OrderedDict[tuple[int, int], None] = OrderedDict()
        for start, stop in on_disk:
            self.add(Part(start, stop, None, on_disk=True))

    def add(self, part: Part) -> None:
        """Add a part, unless one with its range is there."""
        key = (part.start, part.stop)
        with self.lock:
            if key not in self._parts:
                insort(self._order, key)
                self._parts[key] = part

    def covering(self, start: int, stop: int) -> Part | None:
        """A part that holds the whole range, or None."""
        with self.lock:
            place = bisect_right(self._order, (start, 1 << 62))
            for key in reversed(self._order[max(0, place - _LOOK_BACK) : place]):
                if key[1] >= stop:
                    return self._parts[key]
        return None

    def used(self, part: Part) -> None:
        """Note that the bytes of a part, which are in memory, were used; drops others if there are too many."""
        key = (part.start, part.stop)
        with self.lock:
            if key not in self._parts:
                return
            if key not in self._recent:
                self._held += part.stop - part.start
            self._recent[key] = None
            self._recent.move_to_end(key)
            while self._held > self._limit and len(self._recent) > 1:
                self._forget(next(iter(self._recent)))

    def remove(self, part: Part) -> None:
        """Forget a part that could not be read."""
        key = (part.start, part.stop)
        with self.lock:
            if self._recent.pop(key, 0) is None:
                self._held -= part.stop - part.start
            if self._parts.pop(key, None) is not None:
                self._order.remove(key)

    def _forget(self, key: tuple[int, int]) -> None:
        part = self._parts[key]
        if part.on_disk:
            del self._recent[key]
            self._held -= part.stop - part.start
            part.data = None
        else:
            self.remove(part)
