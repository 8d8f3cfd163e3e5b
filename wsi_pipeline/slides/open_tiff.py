"""TIFF files in the backend that reads them best: tiles decoded here, else OpenSlide, else tiffslide."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.backends.jpegtiff import JpegTiffSlide
from wsi_pipeline.slides.backends.openslide import CANNOT_OPEN, OpenSlideSlide
from wsi_pipeline.slides.backends.tiffslide import TiffSlideSlide
from wsi_pipeline.slides.inspect.sniff import Sniffed
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.tiff.slide_image import SlideImage

log = logging.getLogger(__name__)

PLAIN = ("aperio", "generic-tiff", "huron", None)
"""Formats whose levels are plain TIFF tiles; OpenSlide assembles the others by vendor-specific rules."""


def faster(slide: Slide, path: Path, image: SlideImage) -> Slide:
    """The same file with its tiles decoded here if possible, else `slide`."""
    try:
        return JpegTiffSlide(path, slide, image)
    except SlideError as error:
        log.info("%s is read by %s: %s", path.name, slide.info.backend, error.what)
        return slide


def open_tiff(found: Sniffed, image: SlideImage) -> Slide:
    """OpenSlide if it reads all levels of `image`, else tiffslide; OpenSlide again if tiffslide cannot decode them."""
    if found.vendor is None:
        return TiffSlideSlide(found.path, image)
    refused = ""
    try:
        return with_openslide(found.path, image)
    except SlideError as error:
        log.debug("%s: %s", found.path.name, error.what)
        refused = error.what if error.what.startswith(CANNOT_OPEN) else ""
    try:
        return _beside_openslide(TiffSlideSlide(found.path, image), found.path, refused, upright=image.as_stored)
    except SlideError as own:
        try:
            return with_openslide(found.path, image, fewer_levels=True)
        except SlideError as error:
            log.debug("%s: %s", found.path.name, error.what)
        if refused:
            raise SlideError(f"{refused}; tiffslide: {own.what}", todo=own.todo) from own
        raise


def _beside_openslide(slide: Slide, path: Path, refused: str, *, upright: bool) -> Slide:
    """`slide` with what OpenSlide says about the file: why it refuses it, or its bounds."""
    if refused:
        slide.info = replace(slide.info, notes=(*slide.info.notes, f"read by tiffslide because {refused}"))
        return slide
    if not upright:
        return slide
    try:
        other = OpenSlideSlide(path)
    except SlideError as error:
        log.debug("%s: %s", path.name, error.what)
        return slide
    with other:
        if other.info.size == slide.info.size:
            slide.info = replace(slide.info, bounds=other.info.bounds)
    return slide


def with_openslide(path: Path, image: SlideImage, *, fewer_levels: bool = False) -> Slide:
    """The file in OpenSlide; SlideError if OpenSlide would read another image than `image`.

    fewer_levels   it may see only some of the levels
    """
    if not image.as_stored or len(image.levels[0]) > 1 or image.base.index != 0:
        raise SlideError(
            "openslide cannot read it: it reads directory 0 only, upright and in colour",
            todo="Use the backend auto.",
        )
    slide = OpenSlideSlide(path)
    slide.first_of_each_size()
    seen = [(level.size.width, level.size.height) for level in slide.info.levels]
    if seen != image.sizes and not (fewer_levels and seen[0] == image.sizes[0] and set(seen) < set(image.sizes)):
        slide.close()
        raise SlideError(
            f"openslide cannot read it: its levels are {_sizes(seen)}, the directories say {_sizes(image.sizes)}",
            todo="Use the backend auto.",
        )
    slide.info = replace(
        slide.info,
        mpp=image.mpp if image.mpp is not None or image.mpp_note else slide.info.mpp,
        mpp_note=image.mpp_note if image.mpp is not None or image.mpp_note else slide.info.mpp_note,
        objective=slide.info.objective or image.objective,
        notes=image.notes,
    )
    return slide


def _sizes(sizes: list[tuple[int, int]]) -> str:
    return ", ".join(f"{width} x {height}" for width, height in sizes)
