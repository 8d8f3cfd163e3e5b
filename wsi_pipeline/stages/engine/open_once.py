"""Open a slide once for all stages that one process runs on it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from wsi_pipeline.reading.patch_files import check_same_slide
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.store.schema import SlideIdentity


class OpenOnce:
    """A slide that is opened on first use and closed at the end of the `with` block.

    with OpenOnce(record.path) as slide:
        SegmentStage(run, spec).run(record, slide)
        TileStage(run, spec).run(record, slide)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slide: Slide | None = None

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

    def __enter__(self) -> OpenOnce:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._slide is not None:
            self._slide.close()
            self._slide = None
