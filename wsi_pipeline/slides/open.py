"""Open a slide by what it is: the way into this package for every stage."""

from __future__ import annotations

import logging
from pathlib import Path

from wsi_pipeline.errors import SlideError, WsiPipelineError
from wsi_pipeline.slides.base import SLIDE_BACKENDS, Slide
from wsi_pipeline.slides.jpegtiff import JpegTiffSlide
from wsi_pipeline.slides.openslide import OpenSlideSlide
from wsi_pipeline.slides.sniff import Sniffed, other_series, refusal, sniff
from wsi_pipeline.slides.tiffslide import TiffSlideSlide

__all__ = ["AUTO", "SLIDE_BACKENDS", "open_slide"]

log = logging.getLogger(__name__)

AUTO = "auto"
_GENERIC = "generic-tiff"
_SERIES_UID = "dicom.SeriesInstanceUID"


def open_slide(path: Path, backend: str = AUTO) -> Slide:
    """Open a whole-slide image: a file, or a folder of DICOM files.

    backend   "auto" picks by content: jpegtiff for tiled JPEG and JPEG 2000 TIFF, OpenSlide for what else it knows,
              tiffslide for other TIFF files and for those of which it sees more of the pyramid. Or a name of
              SLIDE_BACKENDS

    Raises SlideError in one sentence where the path is no slide, is damaged, or cannot be read;
    UsageError for an unknown backend.
    """
    opener = None if backend == AUTO else SLIDE_BACKENDS.get(backend)
    found = sniff(path)
    try:
        if opener is not None:
            return opener(found.path)
        if found.kind == "tiff":
            return _faster(_open_tiff(found), found.path)
        if found.kind == "dicom":
            return _open_dicom(found, path)
        return OpenSlideSlide(found.path)
    except OSError as error:
        raise refusal(error, path) from error
    except SlideError:
        raise
    except WsiPipelineError as error:
        raise SlideError(f"damaged slide: {error.what}", todo="Copy the file again from its source.") from error


@SLIDE_BACKENDS.register("jpegtiff")
def open_with_jpegtiff(path: Path) -> Slide:
    """Open a tiled JPEG or JPEG 2000 TIFF whose tiles are decoded here; raises SlideError when they cannot be."""
    other = _open_tiff(sniff(path))
    try:
        return JpegTiffSlide(path, other)
    except SlideError as error:
        other.close()
        raise SlideError(f"jpegtiff cannot read it: {error.what}", todo="Let the backend be chosen (auto).") from error


def _faster(slide: Slide, path: Path) -> Slide:
    """`slide`, or the same file with its tiles decoded here where that can be done."""
    try:
        return JpegTiffSlide(path, slide)
    except SlideError as error:
        log.info("%s is read by %s: %s", path.name, slide.info.backend, error.what)
        return slide


def _open_tiff(found: Sniffed) -> Slide:
    """OpenSlide where it knows the format, tiffslide where it does not or where the pyramid is deeper there."""
    if found.vendor is None:
        return TiffSlideSlide(found.path)
    try:
        first: Slide = OpenSlideSlide(found.path)
    except SlideError:
        return TiffSlideSlide(found.path)
    return _deeper(first, found.path) if found.vendor == _GENERIC else first


def _deeper(first: Slide, path: Path) -> Slide:
    """`first`, or the same file in tiffslide if that sees the same image with more levels."""
    try:
        second = TiffSlideSlide(path)
    except SlideError:
        return first
    better = second.info.size == first.info.size and len(second.info.levels) > len(first.info.levels)
    (first if better else second).close()
    return second if better else first


def _open_dicom(found: Sniffed, path: Path) -> Slide:
    if found.vendor is None:
        raise SlideError(
            "DICOM that is no whole-slide image",
            todo="Only VL Whole Slide Microscopy Image files are read; leave it out, or export the slide again.",
        )
    try:
        slide = OpenSlideSlide(found.path)
    except SlideError as error:
        raise SlideError(
            f"DICOM that cannot be read as a slide: {error.what.removeprefix('OpenSlide cannot open it: ')}",
            todo="Export the slide again as DICOM WSI with all its files, or leave it out.",
        ) from error
    strangers = other_series(path, slide.property(_SERIES_UID)) if path.is_dir() else []
    if strangers:
        slide.close()
        raise SlideError(
            f"folder of several DICOM series: {strangers[0].name} belongs to another than {found.path.name}",
            todo="Put each slide in its own folder, or name one file of the series.",
        )
    return slide
