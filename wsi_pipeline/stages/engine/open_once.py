"""Open a slide once for all stages that one process runs on it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.reading.patch_files import check_same_slide
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.thumbnail import read_whole
from wsi_pipeline.stages.engine.whole_pictures import read_pictures
from wsi_pipeline.store.schema import SlideIdentity

Pictures = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class OpenOnce:
    """A slide that is opened on first use and closed at the end of the `with` block.

    with OpenOnce(record.path) as slide:
        SegmentStage(run, spec).run(record, slide)
        TileStage(run, spec).run(record, slide)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slide: Slide | None = None
        self._pictures: tuple[tuple[float, float], Pictures] | None = None
        self._whole: tuple[tuple[float, float], NDArray[np.uint8]] | None = None

    def open(self, identity: SlideIdentity | None = None) -> Slide:
        """The open slide; not to be closed by the caller.

        Raises SlideError if it cannot be opened, or if its size differs from the one in `identity`, as recorded in
        its stores.
        """
        if self._slide is None:
            self._slide = open_slide(self.path)
        if identity is not None:
            check_same_slide(self._slide, identity.slide_id, identity.size)
        return self._slide

    def pictures(self, mpp: float, mask_mpp: float) -> Pictures:
        """The open slide at `mask_mpp` and as thumbnail, each uint8 (h, w, 3); kept for the next stage.

        mpp   micrometres per pixel of level 0
        """
        if self._pictures is None or self._pictures[0] != (mpp, mask_mpp):
            self._pictures = (mpp, mask_mpp), read_pictures(self.open(), mpp, mask_mpp)
        return self._pictures[1]

    def whole(self, identity: SlideIdentity, mpp: float) -> NDArray[np.uint8]:
        """The open slide at `mpp`, or as it is if that is coarser, uint8 (h, w, 3); kept for the next stage."""
        wanted = (identity.mpp, max(mpp, identity.mpp))
        slide = self.open(identity)
        if self._whole is None or self._whole[0] != wanted:
            self._whole = None  # the former picture need not be in memory while the next is read
            self._whole = wanted, read_whole(slide, *wanted)
        return self._whole[1]

    def __enter__(self) -> OpenOnce:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._slide is not None:
            self._slide.close()
            self._slide = self._pictures = self._whole = None
