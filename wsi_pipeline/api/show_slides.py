"""`wp.view`: slides in a notebook, in the viewer of `wsi-pipeline view`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_pipeline.api.open_run import Run
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import SlideError, UsageError
from wsi_pipeline.slides.slide import Slide

if TYPE_CHECKING:
    from wsi_pipeline.viewer.inline import InlineViewer


def view(source: str | PathLike[str] | Slide | Run, slide: str | None = None, *, height: int = 640) -> InlineViewer:
    """The viewer inline, for a slide (open or its path), a run, or one `slide` of a run by its id.

    height   height of the frame, screen pixels

    The viewer is served on the loopback address of this process: a notebook on another machine needs a tunnel
    (docs/viewer.md). Raises UsageError if the extra `view` is not installed or the run has no such slide,
    SlideError for a slide in memory.
    """
    try:
        from wsi_pipeline.viewer.inline import InlineViewer
        from wsi_pipeline.viewer.library import Library, one_slide
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the viewer needs packages that are not installed: {error.name}",
            todo="Install them: pip install 'wsi-pipeline[view]'",
        ) from None
    if isinstance(source, Run) or (not isinstance(source, Slide) and RunDir(Path(source)).cohort_csv.is_file()):
        library = Library.of_run(RunDir(source.folder if isinstance(source, Run) else Path(source)))
        return InlineViewer(library, library.record(slide).slide_id if slide is not None else None, height)
    if isinstance(source, Slide) and source.path is None:
        raise SlideError("a slide in memory cannot be shown", todo="Save it, or look at slide.thumbnail().")
    path, mpp = (source.path, source.given_mpp) if isinstance(source, Slide) else (Path(source), None)
    assert path is not None
    library = one_slide(path.absolute(), mpp)
    return InlineViewer(library, next(iter(library.records)), height)
