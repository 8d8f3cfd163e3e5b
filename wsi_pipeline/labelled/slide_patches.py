"""Patches of several slides as `PatchPixels`: read from the slide as `embed` reads them, or from patch stores."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.images.pixel_cache import PixelCache
from wsi_pipeline.labelled.labelled_patches import Rows
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.reading.patch_reader import PatchSource

_MOST_OPEN = 16


@dataclass(frozen=True, eq=False)
class PatchesOfSlides:
    """Rows of many slides: row i is patch `patch_of[i]` of slide `part_of[i]`.

    key   plain JSON values that, with the rows, determine the pixels
    """

    parts: tuple[PatchFiles, ...]
    part_of: Rows
    patch_of: Rows
    patch_px: int
    mpp: float | None
    key: Any
    cache: PixelCache = field(default_factory=PixelCache)
    sources: _OpenSources = field(default_factory=lambda: _OpenSources())

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Patches (B, P, P, 3), slide by slide: see `PatchPixels.read`. Raises SlideError naming slide and patch."""
        out = np.empty((len(rows), self.patch_px, self.patch_px, 3), np.uint8)
        for place in np.argsort(self.part_of[rows], kind="stable").tolist():
            row = int(rows[place])
            out[place] = self.cache.get(row, lambda row=row: self._read_one(row))  # type: ignore[misc]
        return out

    def contents(self, rows: Rows) -> list[str]:
        """Quick digests of the slides."""
        return [self.parts[k].content for k in self.part_of[rows]]

    def identity(self, rows: Rows) -> Any:
        """Which patches of which slides."""
        return {
            "kind": "slides",
            "key": self.key,
            "slides": [part.content for part in self.parts],
            "part_of": self.part_of[rows].tolist(),
            "patch_of": self.patch_of[rows].tolist(),
        }

    def _read_one(self, row: int) -> NDArray[np.uint8]:
        number = int(self.part_of[row])
        part = self.parts[number]
        try:
            return self.sources.get(number, part.open).read(int(self.patch_of[row]))
        except SlideError as error:
            raise SlideError(error.what, slide=error.slide or part.slide_id, todo=error.todo) from error


class _OpenSources:
    """At most 16 open files; the least recently used is released first and closes when no thread reads it."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, PatchSource] = OrderedDict()
        self._lock = Lock()

    def get(self, key: int, make: Callable[[], PatchSource]) -> PatchSource:
        """The source of `key`, opened if necessary."""
        with self._lock:
            if key not in self._open:
                self._open[key] = make()
                if len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
            return self._open[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return _OpenSources, ()  # open files do not cross processes
