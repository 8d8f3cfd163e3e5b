"""The patches of one slide: read from its patch store if that keeps pixels, else from the slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.reading.patch_sources import PatchSource, SlidePatches, StoredPatches
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.tables.patch_table import PatchTable
from wsi_pipeline.tiling.resolve import PatchGeometry


@dataclass(frozen=True, eq=False)
class PatchFiles:
    """Where the pixels of one slide's patches are.

    content   quick digest of the slide
    path      the slide; `size`: its level-0 size when it was tiled, None if it was not
    coords    int64 (N, 2), level-0 top-left of each patch
    store     the slide's patch store, if it keeps pixels; `pixels`: as what, images or jpeg
    """

    slide_id: str
    content: str
    path: Path
    coords: NDArray[np.int64]
    geometry: PatchGeometry
    size: Size | None = None
    store: Path | None = None
    pixels: str = "none"

    @classmethod
    def of(cls, table: PatchTable, store: Path, path: Path) -> PatchFiles:
        """The source for a patch store read as `table` and its slide at `path`."""
        slide, kept = table.header.slide, table.pixels != "none"
        return cls(
            slide.slide_id,
            slide.quick_digest,
            path,
            table.grid.coords,
            table.geometry,
            slide.size,
            store if kept else None,
            table.pixels,
        )

    @contextmanager
    def on(self, slide: Callable[[], Slide]) -> Iterator[PatchSource]:
        """The patches, from the slide that `slide` opens unless the store keeps pixels; the slide stays open.

        Raises as `open`.
        """
        if self.store is not None:
            with closing(self.open()) as stored:
                yield stored
            return
        opened = slide()
        check_same_slide(opened, self.slide_id, self.size)
        yield SlidePatches(opened, self.coords, self.geometry)

    def open(self) -> PatchSource:
        """Open the store or the slide; the caller closes it.

        Raises SlideError for a slide that cannot be opened or has changed, StoreError for a damaged store.
        """
        if self.store is not None:
            return StoredPatches(open_store(self.store), self.pixels)
        slide = open_slide(self.path)
        try:
            check_same_slide(slide, self.slide_id, self.size)
        except SlideError:
            slide.close()
            raise
        return SlidePatches(slide, self.coords, self.geometry)


def check_same_slide(slide: Slide, slide_id: str, size: Size | None) -> None:
    """Raise SlideError unless the level-0 size of a slide is still `size`; None accepts any."""
    now = slide.info.size
    if size is not None and now != size:
        raise SlideError(
            f"the slide is now {now.width} x {now.height} pixels, but its tissue mask was computed from "
            f"{size.width} x {size.height}",
            slide=slide_id,
            todo="Run: wsi-pipeline tile slides.csv",
        )
