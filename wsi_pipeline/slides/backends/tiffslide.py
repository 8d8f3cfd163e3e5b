"""TIFF files through tiffslide and tifffile: those that OpenSlide refuses or reads only in part.

Flat and stripped TIFF, OME-TIFF with SubIFDs, JPEG 2000 under the codes OpenSlide does not know, LZW, Deflate,
Zstandard, WebP, selected channels and planes, rotated images. `tiff` finds the levels, tiffslide reads the vendor's
metadata; tifffile decodes single segments, which are kept in a small cache so that reading patches row by row decodes
each strip once.
"""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.pixel_cache import PixelCache
from wsi_pipeline.images.white import white
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.remote.skeleton import RemoteReader
from wsi_pipeline.slides.backends.tiff_page import (
    Image,
    JoinedImage,
    MappedImage,
    TurnedImage,
    check_page,
    is_mappable,
    rgb_from,
)
from wsi_pipeline.slides.metadata import number
from wsi_pipeline.slides.slide import Slide, SlideInfo, level_box, levels_of
from wsi_pipeline.slides.tiff.bright_field import CONVERT
from wsi_pipeline.slides.tiff.decode import PARSE_ERRORS, samples_together
from wsi_pipeline.slides.tiff.directories import Directory, every_page
from wsi_pipeline.slides.tiff.slide_image import SlideImage
from wsi_pipeline.slides.tiff.tiff_segments import SegmentedImage

if TYPE_CHECKING:
    import tiffslide

logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False  # its messages about odd files reach users as SlideError

TILE_CACHE_BYTES, STRIP_CACHE_BYTES = 32 << 20, 256 << 20
"""Decoded segments kept per slide. Strips span the slide, so a row of patches needs many of them at once."""


class TiffSlideSlide(Slide):
    """`image` of one TIFF file; at `remote`, which is closed with it, if `path` only has its directories.

    Raises SlideError when it cannot be decoded here.
    """

    def __init__(self, path: Path, image: SlideImage, remote: RemoteFile | None = None) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._remote = remote
        self._slide = _open(path, remote)
        try:
            pages = every_page(self._slide.ts_tifffile)
            self._cache = PixelCache(TILE_CACHE_BYTES if image.base.tiled else STRIP_CACHE_BYTES)
            self._images = [self._level(image, level, pages) for level in range(len(image.levels))]
            self.info = _info(image, _properties(self._slide), [shown.size for shown in self._images])
        except SlideError:
            self._slide.close()
            raise
        except PARSE_ERRORS as error:
            self._slide.close()
            raise _not_understood(error, path) from error

    def _level(self, image: SlideImage, level: int, pages: dict[int, Any]) -> Image:
        parts = [
            self._part(pages[directory.offset], level, image, samples) for directory, samples in _sources(image, level)
        ]
        joined = parts[0] if len(parts) == 1 else JoinedImage(parts)
        orientation = image.base.orientation
        return joined if orientation == 1 else TurnedImage(joined, orientation)

    def _part(self, page: Any, level: int, image: SlideImage, samples: tuple[int, ...] | None) -> Image:
        """One page as RGB: its colours, or the samples of its pixels that are shown."""
        check_page(page, level)
        plane = 0
        if samples is not None and samples_together(page) < int(page.samplesperpixel):
            (plane,), samples = samples, (0,)
        to_rgb = rgb_from(page, samples, image.window)
        if is_mappable(page):
            return MappedImage(page, to_rgb)
        return SegmentedImage(page, self._load_from(page.parent.filehandle), to_rgb, self._cache, level, plane)

    def _load_from(self, file: Any) -> Any:
        """A function that reads (offset, count) of the file, one thread at a time."""

        if self._remote is not None:
            return self._remote.read

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
        """Close the file and drop decoded segments."""
        with self._lock:
            self._closed = True
            self._slide.close()
            if self._remote is not None:
                self._remote.close()
        self._cache.clear()
        self._images = []


def _open(path: Path, remote: RemoteFile | None) -> tiffslide.TiffSlide:
    import tiffslide  # with zarr, a third of a second; most slides have another reader

    try:
        return tiffslide.TiffSlide(path if remote is None else RemoteReader(remote))
    except PARSE_ERRORS as error:
        raise _not_understood(error, path) from error


def _sources(image: SlideImage, level: int) -> list[tuple[Directory, tuple[int, ...] | None]]:
    """The directories of a level, and which samples of their pixels are shown (None: all, as colours)."""
    found, samples = image.levels[level], image.samples
    separate = found[0].planar != 1 and found[0].samples > 1
    if samples is None and separate:
        samples = (0, 1, 2)
    if samples is None or (len(found) == 1 and not separate):
        return [(found[0], samples)]
    parts = found * len(samples) if len(found) == 1 else found
    return [(part, (sample,)) for part, sample in zip(parts, samples, strict=True)]


def _properties(slide: tiffslide.TiffSlide) -> dict[str, Any]:
    """Properties that tiffslide reads from the vendor's description; empty if it cannot parse the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tiffslide warns about metadata of unknown vendors
            return dict(slide.properties)
    except PARSE_ERRORS:
        return {}


def _not_understood(error: Exception, path: Path) -> SlideError:
    reason = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
    return SlideError(f"the TIFF cannot be parsed: {reason[:200]}", todo=CONVERT)


def _info(image: SlideImage, properties: dict[str, Any], sizes: list[Size]) -> SlideInfo:
    return SlideInfo(
        levels=levels_of([(size.width, size.height) for size in sizes]),
        mpp=image.mpp,
        objective=image.objective or number(properties.get("tiffslide.objective-power")),
        vendor=properties.get("tiffslide.vendor") or image.vendor,
        backend="tiffslide",
        mpp_note=image.mpp_note,
        notes=image.notes,
        turned=image.base.orientation != 1,
    )
