"""Open a slide by its content: the entry point of this package."""

from __future__ import annotations

import logging
from dataclasses import replace
from os import PathLike
from pathlib import Path

from wsi_pipeline.errors import SlideError, WsiPipelineError
from wsi_pipeline.slides.backends.jpegtiff import JpegTiffSlide
from wsi_pipeline.slides.backends.openslide import CANNOT_OPEN, OpenSlideSlide
from wsi_pipeline.slides.backends.picture import open_picture
from wsi_pipeline.slides.backends.tiffslide import TiffSlideSlide
from wsi_pipeline.slides.image_choice import ImageChoice, choice_of
from wsi_pipeline.slides.inspect.sniff import Sniffed, other_series, pyramids_of, refusal, sniff
from wsi_pipeline.slides.slide import SLIDE_BACKENDS, Slide
from wsi_pipeline.slides.tiff.slide_image import SlideImage
from wsi_pipeline.slides.tiff.tiff_image import tiff_image

__all__ = ["AUTO", "SLIDE_BACKENDS", "open_slide"]

log = logging.getLogger(__name__)

AUTO = "auto"
_PLAIN = ("aperio", "generic-tiff", "huron", None)
"""Formats whose levels are plain TIFF tiles; OpenSlide assembles the others by vendor-specific rules."""
_FOCAL_PLANES = "TotalPixelMatrixFocalPlanes"
_SERIES_UID = "dicom.SeriesInstanceUID"


def open_slide(
    path: str | PathLike[str],
    backend: str = AUTO,
    *,
    mpp: float | None = None,
    image: str | None = None,
    channel: str | None = None,
    plane: str | None = None,
) -> Slide:
    """Open a whole-slide image: a file, or a folder of DICOM files.

    path      `slide.ome.tif#scene=1` names image 1 of the file
    backend   "auto" picks by content: jpegtiff for tiled JPEG and JPEG 2000 TIFF, OpenSlide for other formats it knows,
              tiffslide for other TIFF files and those whose pyramid it reads more completely. Or a name of
              SLIDE_BACKENDS
    mpp       micrometres per pixel at level 0, for a slide that states none
    image, channel, plane   of a TIFF file that holds several: see `ImageChoice`

    Raises SlideError in one sentence if the path is not a slide, is damaged, or cannot be read;
    UsageError for an unknown backend.
    """
    opener = _open_auto if backend == AUTO else SLIDE_BACKENDS.get(backend)
    file, choice = choice_of(Path(path), image, channel, plane)
    try:
        slide = opener(file, choice)
    except OSError as error:
        raise refusal(error, file) from error
    except SlideError:
        raise
    except WsiPipelineError as error:
        raise SlideError(f"damaged slide: {error.what}", todo="Copy the file again from its source.") from error
    slide.path, slide.given_mpp = Path(path), mpp
    return slide


def _open_auto(path: Path, choice: ImageChoice) -> Slide:
    found = sniff(path)
    if found.kind == "tiff" and found.vendor in _PLAIN:
        image = tiff_image(found.path, choice)
        return _faster(_open_tiff(found, image), found.path, image)
    _refuse_choice(found, choice)
    if found.kind == "picture":
        return open_picture(found.path)
    return _open_dicom(found, path) if found.kind == "dicom" else OpenSlideSlide(found.path)


@SLIDE_BACKENDS.register("openslide")
def open_with_openslide(path: Path, choice: ImageChoice) -> Slide:
    """Open `path` with OpenSlide; raises SlideError if it cannot, or if it would read another image of the file."""
    found = sniff(path)
    if found.kind == "tiff" and found.vendor in _PLAIN:
        return _with_openslide(found.path, tiff_image(found.path, choice), fewer_levels=True)
    _refuse_choice(found, choice)
    return OpenSlideSlide(found.path)


@SLIDE_BACKENDS.register("tiffslide")
def open_with_tiffslide(path: Path, choice: ImageChoice) -> Slide:
    """Open a TIFF file with tiffslide and tifffile; raises SlideError when they cannot."""
    found, image = _plain_tiff(path, choice, "tiffslide")
    return TiffSlideSlide(found.path, image)


@SLIDE_BACKENDS.register("jpegtiff")
def open_with_jpegtiff(path: Path, choice: ImageChoice) -> Slide:
    """Open a tiled JPEG or JPEG 2000 TIFF whose tiles are decoded here; raises SlideError when they cannot be."""
    found, image = _plain_tiff(path, choice, "jpegtiff")
    other = _open_tiff(found, image)
    try:
        return JpegTiffSlide(found.path, other, image)
    except SlideError as error:
        other.close()
        raise SlideError(f"jpegtiff cannot read it: {error.what}", todo="Use the backend auto.") from error


def _plain_tiff(path: Path, choice: ImageChoice, backend: str) -> tuple[Sniffed, SlideImage]:
    found = sniff(path)
    if found.kind != "tiff" or found.vendor not in _PLAIN:
        what = found.vendor or found.kind
        raise SlideError(
            f"{backend} cannot read it: only OpenSlide assembles the tiles of {what}",
            todo="Use the backend auto.",
        )
    return found, tiff_image(found.path, choice)


def _refuse_choice(found: Sniffed, choice: ImageChoice) -> None:
    if choice:
        raise SlideError(
            f"image, channel and plane cannot be chosen in {found.vendor or found.kind} files",
            todo="Leave them out, or convert the file to OME-TIFF.",
        )


def _faster(slide: Slide, path: Path, image: SlideImage) -> Slide:
    """The same file with its tiles decoded here if possible, else `slide`."""
    try:
        return JpegTiffSlide(path, slide, image)
    except SlideError as error:
        log.info("%s is read by %s: %s", path.name, slide.info.backend, error.what)
        return slide


def _open_tiff(found: Sniffed, image: SlideImage) -> Slide:
    """OpenSlide if it reads all levels of `image`, else tiffslide; OpenSlide again if tiffslide cannot decode them."""
    if found.vendor is None:
        return TiffSlideSlide(found.path, image)
    refused = ""
    try:
        return _with_openslide(found.path, image)
    except SlideError as error:
        log.debug("%s: %s", found.path.name, error.what)
        refused = error.what if error.what.startswith(CANNOT_OPEN) else ""
    try:
        return _beside_openslide(TiffSlideSlide(found.path, image), found.path, refused, upright=image.as_stored)
    except SlideError as own:
        try:
            return _with_openslide(found.path, image, fewer_levels=True)
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


def _with_openslide(path: Path, image: SlideImage, *, fewer_levels: bool = False) -> Slide:
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


def _open_dicom(found: Sniffed, path: Path) -> Slide:
    if found.vendor is None:
        raise SlideError(
            "not a whole-slide DICOM",
            todo="Only VL Whole Slide Microscopy Image files are read; leave it out, or export the slide again.",
        )
    try:
        slide = OpenSlideSlide(found.path)
    except SlideError as error:
        if _FOCAL_PLANES in error.what:
            raise SlideError(
                "DICOM with several focal planes, which OpenSlide does not support",
                todo="Export a single focal plane.",
            ) from error
        raise SlideError(
            f"the DICOM slide cannot be read: {error.what.removeprefix('OpenSlide cannot open it: ')}",
            todo="Export the slide again as DICOM WSI with all its files, or leave it out.",
        ) from error
    pyramids = pyramids_of(found.path, slide.property(_SERIES_UID))
    if pyramids > 1:
        slide.close()
        raise SlideError(
            f"DICOM series with {pyramids} pyramids, which OpenSlide would read as one",
            todo="Put the files of each pyramid into its own folder and name that folder.",
        )
    strangers = other_series(path, slide.property(_SERIES_UID)) if path.is_dir() else []
    if strangers:
        slide.close()
        raise SlideError(
            f"several DICOM series in one folder: {strangers[0].name} and {found.path.name} belong to different ones",
            todo="Put each slide in its own folder, or name one file of the series.",
        )
    return slide
