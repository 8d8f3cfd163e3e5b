"""One TIFF page: can it be read as RGB within bounded memory, and how its samples become RGB."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tifffile

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.decode import Pixels, segment_size
from wsi_pipeline.slides.pixels import grey_to_rgb, on_white
from wsi_pipeline.slides.tiffcheck import MAX_SEGMENT_PIXELS

CONVERT = "Convert it to a tiled 8-bit RGB pyramid TIFF."
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _YCBCR = 0, 1, 2, 6
_JPEG = (6, 7, 34892, 33007)
_ASSOCIATED_ALPHA = (0, 1)
"""ExtraSamples values taken as premultiplied alpha; 0 (unspecified) is so taken by libtiff too."""


def check_page(page: Any, level: int) -> None:
    """Raise SlideError in one sentence where a page cannot be read as an 8-bit RGB image in bounded memory."""
    compression = int(page.compression)
    if compression != 1 and compression not in tifffile.TIFF.DECOMPRESSORS:
        raise SlideError(f"TIFF compression {compression} is not supported", todo=CONVERT)
    if page.dtype != np.uint8 or page.bitspersample != 8:
        bits = f"{page.bitspersample}-bit {page.dtype}"
        raise SlideError(f"TIFF with {bits} samples; only 8 bits are read", todo=CONVERT)
    _check_colours(page, compression)
    if int(page.imagedepth) != 1:
        raise SlideError(f"TIFF volume of depth {page.imagedepth}, not a flat image", todo=CONVERT)
    segment = segment_size(page)
    if segment.pixels > MAX_SEGMENT_PIXELS and not is_mappable(page):
        kind = "tile" if page.is_tiled else "strip"
        raise SlideError(
            f"TIFF level {level} is stored in {kind}s of {segment.width} x {segment.height} pixels, "
            f"each decoded only as a whole (the limit is {MAX_SEGMENT_PIXELS} pixels)",
            todo="Convert it to a tiled pyramid TIFF.",
        )


def _check_colours(page: Any, compression: int) -> None:
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    grey = photometric in (_MIN_IS_BLACK, _MIN_IS_WHITE) and samples == 1
    colour = photometric in (_RGB, _YCBCR) and samples in (3, 4)
    if not grey and not colour:
        name = getattr(page.photometric, "name", photometric)
        raise SlideError(f"TIFF with {samples} samples per pixel of kind {name}, not RGB or grey", todo=CONVERT)
    if int(page.planarconfig) != 1:
        raise SlideError("TIFF with its colours in separate planes is not supported", todo=CONVERT)
    if photometric == _YCBCR and compression not in _JPEG:
        raise SlideError(f"TIFF with YCbCr colours under compression {compression} is not supported", todo=CONVERT)


def rgb_from(page: Any) -> Callable[[Pixels], Pixels]:
    """The function that makes RGB (h, w, 3) of the page's samples (h, w, s)."""
    if int(page.samplesperpixel) == 1:
        return partial(grey_to_rgb, white_is_zero=int(page.photometric) == _MIN_IS_WHITE)
    if int(page.samplesperpixel) == 4:
        extra = int(page.extrasamples[0]) if page.extrasamples else 0
        return partial(on_white, premultiplied=extra in _ASSOCIATED_ALPHA)
    return np.ascontiguousarray


def is_mappable(page: Any) -> bool:
    """True where the pixels lie in the file as they are: one uncompressed, interleaved, complete block."""
    complete = page.parent.filehandle.size >= page.dataoffsets[0] + page.nbytes if page.dataoffsets else False
    return bool(complete and page.is_memmappable and page.planarconfig == 1 and not page.is_tiled)


class MappedImage:
    """An uncompressed TIFF image read straight from the mapped file: memory grows only with what is asked for."""

    def __init__(self, page: Any, to_rgb: Callable[[Pixels], Pixels]) -> None:
        self.size = Size(int(page.imagewidth), int(page.imagelength))
        shape = (self.size.height, self.size.width, int(page.samplesperpixel))
        self._pixels = page.parent.filehandle.memmap_array(np.uint8, shape, page.dataoffsets[0])
        self._to_rgb = to_rgb

    def read(self, box: Box) -> Pixels:
        """RGB pixels of a box that lies inside the image."""
        return self._to_rgb(np.array(self._pixels[box.y : box.bottom, box.x : box.right]))
