"""One TIFF page: whether it can be read in bounded memory, and how its samples become RGB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.tiff.bright_field import ASSOCIATED, CONVERT, MIN_IS_WHITE, YCBCR
from wsi_pipeline.slides.tiff.decode import Pixels, samples_together, segment_size
from wsi_pipeline.slides.tiff.tiff_check import MAX_SEGMENT_PIXELS
from wsi_pipeline.slides.to_rgb import grey_to_rgb, on_white, windowed

ToRgb = Callable[[NDArray[Any]], Pixels]

_JPEG2000_YCBCR = 33003
_JPEG = (6, 7, 34892, 33007)


class Image(Protocol):
    """A reader of boxes of one level."""

    size: Size

    def read(self, box: Box) -> Pixels:
        """RGB pixels of a box that lies inside the image."""


def check_page(page: Any, level: int) -> None:
    """Raise SlideError in one sentence if a page cannot be decoded here in bounded memory."""
    compression = int(page.compression)
    if compression != 1 and compression not in tifffile.TIFF.DECOMPRESSORS:
        raise SlideError(f"TIFF compression {compression} is not supported", todo=CONVERT)
    if compression == _JPEG2000_YCBCR:
        raise SlideError("JPEG 2000 TIFF in Aperio's YCbCr (33003), which only OpenSlide reads", todo=CONVERT)
    if int(page.photometric) == YCBCR and compression not in _JPEG:
        raise SlideError(f"TIFF with YCbCr colours under compression {compression} is not supported", todo=CONVERT)
    segment = segment_size(page)
    if segment.pixels > MAX_SEGMENT_PIXELS and not is_mappable(page):
        kind = "tile" if page.is_tiled else "strip"
        raise SlideError(
            f"TIFF level {level} is stored in {kind}s of {segment.width} x {segment.height} pixels, "
            f"each decoded only as a whole (the limit is {MAX_SEGMENT_PIXELS} pixels)",
            todo="Convert it to a tiled pyramid TIFF.",
        )


def rgb_from(page: Any, samples: Sequence[int] | None, window: tuple[float, float] | None) -> ToRgb:
    """The function that makes RGB (h, w, 3) of the page's samples (h, w, s).

    samples   the one or three to show; None for all of them as colours
    window    values that become 0 and 255; None if samples have 8 bits
    """
    to_bytes = partial(windowed, window=window) if window is not None else np.ascontiguousarray
    inverted = int(page.photometric) == MIN_IS_WHITE
    if samples is not None:
        return lambda stored: _shown(to_bytes(stored[..., list(samples)]), inverted)
    together = samples_together(page)
    if together == 1:
        return lambda stored: grey_to_rgb(to_bytes(stored), white_is_zero=inverted)
    if together == 4:
        premultiplied = bool(page.extrasamples) and int(page.extrasamples[0]) == ASSOCIATED
        return lambda stored: on_white(to_bytes(stored), premultiplied=premultiplied)
    return to_bytes


def _shown(samples: Pixels, inverted: bool) -> Pixels:
    if samples.shape[2] == 1:
        return grey_to_rgb(samples, white_is_zero=inverted)
    return np.ascontiguousarray(255 - samples if inverted else samples)


def is_mappable(page: Any) -> bool:
    """True if the pixels lie in the file as one uncompressed, interleaved, complete block."""
    complete = page.parent.filehandle.size >= page.dataoffsets[0] + page.nbytes if page.dataoffsets else False
    return bool(complete and page.is_memmappable and page.planarconfig == 1 and not page.is_tiled)


class MappedImage:
    """An uncompressed TIFF image read from the memory-mapped file; only the requested region takes memory."""

    def __init__(self, page: Any, to_rgb: ToRgb) -> None:
        self.size = Size(int(page.imagewidth), int(page.imagelength))
        shape = (self.size.height, self.size.width, int(page.samplesperpixel))
        kind = page.dtype.newbyteorder(page.parent.byteorder)
        self._pixels = page.parent.filehandle.memmap_array(kind, shape, page.dataoffsets[0])
        self._to_rgb = to_rgb

    def read(self, box: Box) -> Pixels:
        """RGB pixels of a box that lies inside the image."""
        return self._to_rgb(np.array(self._pixels[box.y : box.bottom, box.x : box.right]))


class JoinedImage:
    """Three single-channel images as red, green and blue."""

    def __init__(self, parts: Sequence[Image]) -> None:
        self.size, self._parts = parts[0].size, parts

    def read(self, box: Box) -> Pixels:
        """RGB pixels of a box that lies inside the image."""
        return np.stack([part.read(box)[..., 0] for part in self._parts], axis=2)


class TurnedImage:
    """A whole image rotated or mirrored as its orientation tag says (2 to 8 of TIFF 6.0)."""

    def __init__(self, image: Image, orientation: int) -> None:
        self._image = image
        self._across = orientation >= 5
        self._flip_x, self._flip_y = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
        width, height = image.size.width, image.size.height
        self.size = Size(height, width) if self._across else image.size

    def read(self, box: Box) -> Pixels:
        """RGB pixels of a box that lies inside the turned image."""
        x = self.size.width - box.right if self._flip_x else box.x
        y = self.size.height - box.bottom if self._flip_y else box.y
        stored = Box(y, x, box.height, box.width) if self._across else Box(x, y, box.width, box.height)
        pixels = self._image.read(stored)
        pixels = pixels.transpose(1, 0, 2) if self._across else pixels
        pixels = pixels[:, ::-1] if self._flip_x else pixels
        return np.ascontiguousarray(pixels[::-1] if self._flip_y else pixels)
