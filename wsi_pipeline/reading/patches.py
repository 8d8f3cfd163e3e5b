"""PatchReader: the pixels of a slide's patches, as uint8 batches in store order.

Reads ahead in threads (backends release the GIL while they decode) while the caller computes. Where the store
keeps pixels they are read from it, and the slide is not touched.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.base import Slide
from wsi_pipeline.slides.shrink import area_resize
from wsi_pipeline.store.base import Store
from wsi_pipeline.store.schema import IMAGES, JPEG
from wsi_pipeline.tiling.resolve import PatchGeometry

Batch = NDArray[np.uint8]


class PatchSource(Protocol):
    """Where the pixels of patch `row` come from. Called from several threads."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> NDArray[np.uint8]:
        """uint8 (P, P, 3)."""

    def close(self) -> None:
        """Release the file behind it."""


@dataclass(frozen=True, eq=False)
class SlidePatches:
    """Patches cut from an open slide: coords int64 (N, 2) in level-0 pixels."""

    slide: Slide
    coords: NDArray[np.int64]
    geometry: PatchGeometry

    def __len__(self) -> int:
        return len(self.coords)

    def read(self, row: int) -> NDArray[np.uint8]:
        """Read one patch at its level and shrink it. A decoding error names the patch."""
        x, y = (int(value) for value in self.coords[row])
        side = self.geometry.level_px
        try:
            region = self.slide.read_region(x, y, self.geometry.level, side, side)
        except SlideError as error:
            raise SlideError(f"patch {row} at ({x}, {y}): {error.what}", slide=error.slide, todo=error.todo) from error
        return shrink_to(region, self.geometry.patch_px)

    def close(self) -> None:
        """Close the slide."""
        self.slide.close()


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

    def close(self) -> None:
        """Close the store."""
        self.store.close()


class PatchReader:
    """Iterate over (first row, batch uint8 (B, P, P, 3)); every row once, in order, the last batch shorter.

    threads   readers that work ahead; at most two batches are held beyond the one in use
    start     row to begin with
    """

    def __init__(self, source: PatchSource, batch: int, threads: int = 2, start: int = 0) -> None:
        self.source, self.batch, self.threads, self.start = source, max(1, batch), max(1, threads), start

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        starts = range(self.start, len(self.source), self.batch)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="patches") as pool:
            pending: deque[tuple[int, list[Future[Batch]]]] = deque()
            try:
                for first in starts:
                    rows = range(first, min(first + self.batch, len(self.source)))
                    pending.append((first, [pool.submit(self.source.read, row) for row in rows]))
                    if len(pending) > 2:
                        yield _collect(*pending.popleft())
                while pending:
                    yield _collect(*pending.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _collect(first: int, futures: list[Future[Batch]]) -> tuple[int, Batch]:
    return first, np.stack([future.result() for future in futures])


def shrink_to(region: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Area-average a square uint8 region to (side, side, 3); enlarge bicubically where it is smaller."""
    height, width = region.shape[:2]
    if height == side and width == side:
        return region
    if height % side == 0 and width % side == 0:
        return np.asarray(Image.fromarray(region).reduce((width // side, height // side)))
    if side > height:
        return np.asarray(Image.fromarray(region).resize((side, side), Image.Resampling.BICUBIC))
    return area_resize(region, Size(side, side))  # Pillow's BOX filter rounds fractional edges to whole pixels


def encode_jpeg(patch: NDArray[np.uint8], quality: int) -> bytes:
    """One patch as JPEG, 4:4:4 so that stain colours are not smeared."""
    out = io.BytesIO()
    Image.fromarray(patch).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) from JPEG bytes."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
