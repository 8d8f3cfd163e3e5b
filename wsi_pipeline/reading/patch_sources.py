"""Where patches come from: an open slide or a patch store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.images.pixel_cache import PixelCache
from wsi_pipeline.reading.pixels import decode_jpeg, shrink_to
from wsi_pipeline.reading.tile_cache import OnceCache
from wsi_pipeline.reading.tile_plan import GetTile, TilePlan, plan_patches
from wsi_pipeline.slides.slide import MAX_REGION_PIXELS, Slide
from wsi_pipeline.slides.slide_info import expect_tiles
from wsi_pipeline.store.schema import IMAGES, JPEG
from wsi_pipeline.store.store import Store
from wsi_pipeline.tiling.resolve import PatchGeometry

Batch = NDArray[np.uint8]
Fill = Callable[[int, Batch], None]
"""(first row, out uint8 (B, P, P, 3)): fill `out` with the patches from the first row on. For several threads."""

RECENT_BYTES = 32 << 20
"""Decoded tiles kept for patches read one by one, in any order."""


class PatchSource(Protocol):
    """A source of patch pixels. Called from several threads."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> NDArray[np.uint8]:
        """uint8 (P, P, 3)."""

    def close(self) -> None:
        """Close the underlying file."""


@runtime_checkable
class ReadsInOrder(Protocol):
    """A source that is faster at reading all rows once, in order, than row by row."""

    def in_order(self, start: int) -> tuple[int, Fill]:
        """Patch side, and a function that fills batches with rows from `start` on, each once and nearly in order."""


@dataclass(frozen=True, eq=False)
class SlidePatches:
    """Patches cut from an open slide: coords int64 (N, 2) in level-0 pixels."""

    slide: Slide
    coords: NDArray[np.int64]
    geometry: PatchGeometry

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def side(self) -> int:
        """Pixels of a patch along each side."""
        return self.geometry.patch_px

    def read(self, row: int) -> NDArray[np.uint8]:
        """Read one patch. A decoding error names it."""
        out = np.empty((self.side, self.side, 3), np.uint8)
        self._read_into(self._recent, row, out)
        return out

    def in_order(self, start: int) -> tuple[int, Fill]:
        """A reader of the rows from `start` on that decodes every stored tile once."""
        plan = self.plan
        get = OnceCache(plan.tiles, plan.uses(start)).get if plan else None
        self.expect(start)
        return self.side, partial(self._fill, get)

    def expect(self, start: int) -> None:
        """Begin to fetch the tiles of the rows from `start` on, if the slide lies at an address."""
        plan = self.plan
        if plan is not None:
            expect_tiles(plan.tiles, lambda: plan.order(start))

    @cached_property
    def plan(self) -> TilePlan | None:
        """How the patches lie on the stored tiles; None if the slide does not give them or refuses such regions."""
        tiles, side = self.slide.tiles(self.geometry.level), self.geometry.level_px
        if tiles is None or side < self.geometry.patch_px:
            return None
        plan = plan_patches(tiles, self.slide.info.levels[self.geometry.level], self.coords, self.geometry)
        return plan if (side // int(plan.shrinks.min(initial=side))) ** 2 <= MAX_REGION_PIXELS else None

    def close(self) -> None:
        """Close the slide."""
        self.slide.close()

    @cached_property
    def _recent(self) -> GetTile | None:
        if self.plan is None:
            return None
        tiles, cache = self.plan.tiles, PixelCache(RECENT_BYTES)

        def get(column: int, row: int, shrink: int, out: object = None) -> NDArray[np.uint8]:
            """A decoded tile, from the cache if it was used recently."""
            return cache.get((column, row, shrink), partial(tiles.decode, column, row, shrink))

        return get

    def _fill(self, get: GetTile | None, first: int, out: Batch) -> None:
        for row, patch in enumerate(out, first):
            self._read_into(get, row, patch)

    def _read_into(self, get: GetTile | None, row: int, out: NDArray[np.uint8]) -> None:
        x, y = (int(value) for value in self.coords[row])
        try:
            if self.plan is not None and get is not None:
                self.plan.assemble(row, get, out)
            else:
                side = self.geometry.level_px
                out[...] = shrink_to(self.slide.read_region(x, y, self.geometry.level, side, side), self.side)
        except SlideError as error:
            raise SlideError(f"patch {row} at ({x}, {y}): {error.what}", slide=error.slide, todo=error.todo) from error


@dataclass(frozen=True, eq=False)
class StoredPatches:
    """Patches kept in a patch store as `images` or `jpeg`."""

    store: Store
    kind: str

    def __len__(self) -> int:
        return self.store.shape(self.kind)[0]

    def read(self, row: int) -> NDArray[np.uint8]:
        """Read one patch from the store."""
        if self.kind == IMAGES:
            return np.asarray(self.store.read(IMAGES, row, row + 1)[0], dtype=np.uint8)
        return decode_jpeg(self.store.read_bytes(JPEG, row, row + 1)[0])

    def in_order(self, start: int) -> tuple[int, Fill]:
        """A reader that takes several rows from the store at a time."""
        return len(self.read(start)), self._fill

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _fill(self, first: int, out: Batch) -> None:
        if self.kind == IMAGES:
            out[...] = self.store.read(IMAGES, first, first + len(out))
            return
        for patch, data in zip(out, self.store.read_bytes(JPEG, first, first + len(out)), strict=True):
            patch[...] = decode_jpeg(data)


def in_order(source: PatchSource, start: int) -> tuple[int, Fill]:
    """`ReadsInOrder.in_order` for any source; single rows if the source has no faster way."""
    if isinstance(source, ReadsInOrder):
        return source.in_order(start)

    def row_by_row(first: int, out: Batch) -> None:
        """Fill a batch with single rows."""
        for row, patch in enumerate(out, first):
            patch[...] = source.read(row)

    return len(source.read(start)), row_by_row
