"""One compressed TIFF segment to samples, by tifffile's decoder or, for LZW, by libtiff's."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_pipeline.geometry import Size

Pixels = NDArray[np.uint8]
Decoder = Callable[[bytes, int], Pixels]
"""(compressed bytes, number of the segment) to samples (h, w, s)."""

DECODE_ERRORS = (RuntimeError, ValueError, TypeError, OSError, MemoryError)
"""What codecs raise on damaged data (imagecodecs' errors are RuntimeErrors, tifffile's ValueErrors)."""

_LZW = 5


def decoder_of(page: Any) -> Decoder:
    """The decoder of a tifffile page; it raises one of DECODE_ERRORS on damaged data."""
    if int(page.compression) == _LZW and int(page.fillorder) == 1:
        return _lzw_decoder(page)
    decode = page.decode
    tables = {"jpegtables": page.jpegtables} if page.jpegtables is not None else {}

    def by_tifffile(data: bytes, index: int) -> Pixels:
        """Samples (h, w, s) of one segment."""
        decoded, _, _ = decode(data, index, **tables)
        samples: Pixels = np.asarray(decoded)[0]
        return samples

    return by_tifffile


def segment_size(page: Any) -> Size:
    """Width and height of the tiles or strips of a TIFF page (strips no taller than the image)."""
    if page.is_tiled:
        return Size(int(page.tilewidth), int(page.tilelength))
    return Size(int(page.imagewidth), max(1, min(int(page.rowsperstrip), int(page.imagelength))))


def _lzw_decoder(page: Any) -> Decoder:
    """LZW through libtiff: imagecodecs' own decoder (2026.3.6) crashes the process on about 1 in 200 damaged streams.

    The segment is wrapped as a TIFF file of one strip, which costs about a tenth of a millisecond.
    """
    size, rows = segment_size(page), int(page.imagelength)
    samples, predictor = int(page.samplesperpixel), int(page.predictor)

    def by_libtiff(data: bytes, index: int) -> Pixels:
        """Samples (h, w, s) of one segment."""
        height = size.height if page.is_tiled else min(size.height, rows - index * size.height)
        shape = (height, size.width, samples) if samples > 1 else (height, size.width)
        file = io.BytesIO()
        tifffile.imwrite(
            file,
            iter([data]),
            shape=shape,
            dtype=np.uint8,
            compression="lzw",
            predictor=predictor > 1,
            photometric="rgb" if samples > 1 else "minisblack",
            extrasamples=["unspecified"] if samples == 4 else None,
            rowsperstrip=height,
            metadata=None,
        )
        decoded: Pixels = np.asarray(imagecodecs.tiff_decode(file.getvalue()), np.uint8)
        return decoded.reshape(height, size.width, samples)

    return by_libtiff
