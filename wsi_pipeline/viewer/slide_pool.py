"""Bounded caches of open slides and encoded tiles, so that long panning does not use more memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wsi_pipeline.viewer.deep_zoom import DeepZoom

MOST_SLIDES = 12
"""Open slides; each may hold 64 MB of decoded tiles."""
CACHE_BYTES = 64 << 20
"""Encoded tiles and thumbnails."""


@dataclass
class _Kept:
    """An open slide and its number of readers; `lock` is held while it is being opened."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    zoom: DeepZoom | None = None
    readers: int = 0
    dropped: bool = False


class SlidePool:
    """At most `most` open slides; the least recently used is closed first. Thread-safe."""

    def __init__(self, open_slide: Callable[[str], DeepZoom], most: int = MOST_SLIDES) -> None:
        self._open, self._most = open_slide, most
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    @contextmanager
    def use(self, slide_id: str) -> Iterator[DeepZoom]:
        """The slide, open until the `with` block ends. Raises whatever opening it raises."""
        with self._lock:
            kept = self._kept.setdefault(slide_id, _Kept())
            kept.readers += 1
            self._kept.move_to_end(slide_id)
        try:
            with kept.lock:
                if kept.zoom is None:
                    kept.zoom = self._open(slide_id)
            yield kept.zoom
        finally:
            self._leave(slide_id, kept)

    @contextmanager
    def use_if_open(self, slide_id: str) -> Iterator[DeepZoom | None]:
        """The slide, or None if it is not open yet. Never waits for a file."""
        with self._lock:
            kept = self._kept.get(slide_id)
            if kept is not None and kept.zoom is not None:
                kept.readers += 1
                self._kept.move_to_end(slide_id)
            else:
                kept = None
        try:
            yield kept.zoom if kept is not None else None
        finally:
            if kept is not None:
                self._leave(slide_id, kept)

    def close(self) -> None:
        """Close every slide without readers now, and the others when their last reader leaves."""
        with self._lock:
            unused = self._drop(len(self._kept))
        _close(unused)

    def __len__(self) -> int:
        return len(self._kept)

    def _leave(self, slide_id: str, kept: _Kept) -> None:
        with self._lock:
            kept.readers -= 1
            if kept.zoom is None and not kept.readers:
                self._kept.pop(slide_id, None)
            unused = [kept] if kept.dropped and not kept.readers else []
            unused += self._drop(len(self._kept) - self._most)
        _close(unused)

    def _drop(self, count: int) -> list[_Kept]:
        """Take out the `count` least recently used; returns those to close now, which takes no lock."""
        if count < 1:
            return []
        dropped = [self._kept.pop(slide_id) for slide_id in list(self._kept)[:count]]
        for kept in dropped:
            kept.dropped = True
        return [kept for kept in dropped if not kept.readers]


def _close(unused: list[_Kept]) -> None:
    for kept in unused:
        if kept.zoom is not None:
            kept.zoom.slide.close()


class ByteCache:
    """Cache of (bytes, media type); beyond `limit` bytes the least recently used are dropped first."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.held = limit, 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, tuple[bytes, str]] = OrderedDict()

    def known(self, key: Hashable) -> tuple[bytes, str] | None:
        """The value cached under `key`, or None."""
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
            return found

    def get(self, key: Hashable, make: Callable[[], tuple[bytes, str]]) -> tuple[bytes, str]:
        """The value cached under `key`, else that of `make`; two threads may each compute the same value once."""
        found = self.known(key)
        if found is not None:
            return found
        made = make()
        with self._lock:
            if key not in self._items:
                self._items[key] = made
                self.held += len(made[0])
            while self.held > self.limit and len(self._items) > 1:
                _, (data, _) = self._items.popitem(last=False)
                self.held -= len(data)
        return made
