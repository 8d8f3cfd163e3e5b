"""Checks that several stages make before or after they read a slide."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.cohort.run_dir import STORE_SUFFIXES
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.inspect.identity import quick_digest
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.store.schema import SlideIdentity
from wsi_pipeline.system.atomic import remove


def check_unchanged(path: Path, identity: SlideIdentity) -> None:
    """Refuse a slide file that is not, or no more, the one its stores tell of; asked when its pixels were read."""
    if quick_digest(path) != identity.quick_digest:
        raise SlideError(
            f"{path} was replaced or changed since its tissue mask was begun",
            slide=identity.slide_id,
            todo="Run again: wsi-pipeline tile slides.csv",
        )


def drop_other_format(path: Path) -> None:
    """Remove the same slide's store in the format that was used before, so that there is one truth."""
    for suffix in STORE_SUFFIXES.values():
        if suffix != path.suffix:
            remove(path.with_suffix(suffix))


def check_same_slide(slide: Slide, identity: SlideIdentity) -> None:
    """Refuse a slide whose size is not the one its stores were made from."""
    if slide.info.size != identity.size:
        size = slide.info.size
        raise SlideError(
            f"the slide is {size.width} x {size.height} pixels now, its tissue mask was made from "
            f"{identity.width} x {identity.height}",
            slide=identity.slide_id,
            todo="Run: wsi-pipeline tile slides.csv",
        )
