"""TIFF files through tiffslide and tifffile: what OpenSlide refuses or sees only in part.

Flat and stripped TIFF, OME-TIFF with SubIFDs, JPEG 2000 under the codes OpenSlide does not know, LZW,
Deflate, Zstandard, WebP. tiffslide reads the metadata and finds the pyramid; tifffile decodes single
segments, which are kept in a small cache so that reading patches row by row decodes each strip once.
"""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tiffslide
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError, WsiPipelineError
from wsi_pipeline.geometry import Box
from wsi_pipeline.slides.base import SLIDE_BACKENDS, Slide, SlideInfo, level_box, levels_of, white
from wsi_pipeline.slides.metadata import number, stated_mpp
from wsi_pipeline.slides.segments import SegmentCache, SegmentedImage
from wsi_pipeline.slides.tiffpage import CONVERT, MappedImage, check_page, is_mappable, rgb_from

logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False  # its findings about odd files reach users as SlideError

TILE_CACHE_BYTES, STRIP_CACHE_BYTES = 32 << 20, 256 << 20
"""Decoded segments kept per slide. Strips span the slide, so a row of patches needs many of them at once."""

_PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    WsiPipelineError,
    struct.error,
)
"""What tifffile, tiffslide and their XML parsers raise on files they do not understand (tifffile.TiffFileError
is a ValueError, NotImplementedError a RuntimeError, XML errors are SyntaxErrors)."""


class TiffSlideSlide(Slide):
    """One TIFF file open in tiffslide. Raises SlideError when it cannot be read as an RGB slide."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._slide = _open(path)
        try:
            properties, pages = _parse(self._slide)
            self._cache = SegmentCache(TILE_CACHE_BYTES if pages[0].is_tiled else STRIP_CACHE_BYTES)
            self._images = [self._image(page, level) for level, page in enumerate(pages)]
            self.info = _info(self._slide.ts_tifffile, properties, pages)
        except SlideError:
            self._slide.close()
            raise
        except _PARSE_ERRORS as error:
            self._slide.close()
            raise _not_understood(error, path) from error

    def _image(self, page: Any, level: int) -> SegmentedImage | MappedImage:
        check_page(page, level)
        if is_mappable(page):
            return MappedImage(page, rgb_from(page))
        return SegmentedImage(page, self._load_from(page.parent.filehandle), rgb_from(page), self._cache, level)

    def _load_from(self, file: Any) -> Any:
        """A function that reads (offset, count) of the file, one thread at a time."""

        def load(offset: int, count: int) -> bytes:
            """`count` bytes from `offset` on, fewer at the end of the file."""
            with self._lock:
                if self._closed:
                    raise SlideError("slide is closed")
                if file.closed:
                    file.open()
                file.seek(offset)
                data: bytes = file.read(count)
                return data

        return load

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        images = self._images  # first: another thread may close the slide between the two lines
        if self._closed:
            raise SlideError("slide is closed")
        box = level_box(self.info.levels[level], x, y, width, height)
        inside = box.clipped(self.info.levels[level].size)
        if inside == box:
            return images[level].read(box)
        image = white(width, height)
        if inside:
            here = Box(inside.x - box.x, inside.y - box.y, inside.width, inside.height)
            image[here.y : here.bottom, here.x : here.right] = images[level].read(inside)
        return image

    def close(self) -> None:
        """Close the file and forget decoded segments."""
        with self._lock:
            self._closed = True
            self._slide.close()
        self._cache.clear()
        self._images = []


@SLIDE_BACKENDS.register("tiffslide")
def open_with_tiffslide(path: Path) -> Slide:
    """Open a TIFF file with tiffslide; raises SlideError when it cannot."""
    return TiffSlideSlide(path)


def _open(path: Path) -> tiffslide.TiffSlide:
    try:
        return tiffslide.TiffSlide(path)
    except _PARSE_ERRORS as error:
        raise _not_understood(error, path) from error


def _parse(slide: tiffslide.TiffSlide) -> tuple[dict[str, Any], list[Any]]:
    """The properties tiffslide finds and one TIFF page per level, finest first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiffslide says there which vendors' metadata it does not know
        properties = slide.properties
    if "tiffslide.series-composition" in properties:
        raise SlideError("TIFF of several separate regions: only OpenSlide reads it", todo=CONVERT)
    series = slide.ts_tifffile.series[properties["tiffslide.series-index"]]
    return properties, [_only_page(level) for level in series.levels]


def _only_page(level: Any) -> Any:
    if len(level.pages) != 1 or level.pages[0] is None:
        raise SlideError(
            f"TIFF of {len(level.pages)} separate planes ({level.axes}), not one RGB image",
            todo=CONVERT,
        )
    return level.pages[0].aspage()


def _not_understood(error: Exception, path: Path) -> SlideError:
    if isinstance(error, NotImplementedError):  # tiffslide on anything but one image of interleaved samples
        return SlideError("TIFF stack, volume or separate colour planes, not one RGB image", todo=CONVERT)
    reason = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
    return SlideError(f"TIFF that cannot be understood: {reason[:200]}", todo=CONVERT)


def _info(tiff: Any, properties: dict[str, Any], pages: list[Any]) -> SlideInfo:
    x, y = (number(properties.get(f"tiffslide.mpp-{axis}")) for axis in "xy")
    mpp, note = stated_mpp(tiff.ome_metadata or "" if tiff.is_ome else "", x, y)
    return SlideInfo(
        levels=levels_of([(int(page.imagewidth), int(page.imagelength)) for page in pages]),
        mpp=mpp,
        objective=number(properties.get("tiffslide.objective-power")),
        vendor=properties.get("tiffslide.vendor") or ("ome-tiff" if tiff.is_ome else "generic-tiff"),
        backend="tiffslide",
        mpp_note=note,
    )
