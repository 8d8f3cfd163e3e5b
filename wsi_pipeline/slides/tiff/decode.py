"""Decode one compressed TIFF segment to samples, with tifffile's decoder or, for LZW, libtiff's."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size

Pixels = NDArray[np.uint8]
Decoder = Callable[[bytes, int], Pixels]
"""(compressed bytes, number of the segment) -> samples (h, w, s)."""

DECODE_ERRORS = (RuntimeError, ValueError, TypeError, OSError, MemoryError)
"""What codecs raise on damaged data (imagecodecs' errors are RuntimeErrors, tifffile's ValueErrors)."""

PICTURE_ERRORS = (
    *DECODE_ERRORS, SyntaxError, EOFError, IndexError, KeyError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow and tifffile raise on damaged pictures (Pillow: SyntaxError for PNG chunks)."""

PARSE_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, SyntaxError, TypeError,
    ValueError, WsiPipelineError, struct.error,
)  # fmt: skip
"""What tifffile, tiffslide and their XML parsers raise on files they do not understand (tifffile.TiffFileError
is a ValueError, NotImplementedError a RuntimeError, XML errors are SyntaxErrors)."""

_LZW, _JPEG = 5, 7
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""JPEG markers (ITU-T T.81, table B.1) of the frame headers that say how large a picture is."""


def decoder_of(page: Any) -> Decoder:
    """The decoder of a tifffile page; it raises one of DECODE_ERRORS on damaged data."""
    if int(page.compression) == _LZW and int(page.fillorder) == 1:
        return _lzw_decoder(page)
    decode, is_jpeg = page.decode, int(page.compression) == _JPEG
    tables = {"jpegtables": page.jpegtables} if page.jpegtables is not None else {}

    def by_tifffile(data: bytes, index: int) -> Pixels:
        """Samples (h, w, s) of one segment."""
        if is_jpeg and not page.is_tiled:
            _check_frame(data, int(page.imagewidth))
        decoded, _, _ = decode(data, index, **tables)
        samples: Pixels = np.asarray(decoded)[0]
        return samples

    return by_tifffile


def _check_frame(data: bytes, width: int) -> None:
    """Raise ValueError if a JPEG strip is narrower than its image.

    tifffile would pad what is missing, which takes gigabytes for a damaged width.
    """
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _FRAMES:
            found = int.from_bytes(data[at + 7 : at + 9], "big")
            if found < width:
                raise ValueError(f"a JPEG strip of {found} pixels width in an image of {width}")
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def samples_together(page: Any) -> int:
    """Samples of a pixel stored together in one segment: all, or one if each has its own plane."""
    return int(page.samplesperpixel) if int(page.planarconfig) == 1 else 1


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
    samples, predictor = samples_together(page), int(page.predictor)
    per_plane, dtype = -(-rows // size.height), np.dtype(page.dtype)

    def by_libtiff(data: bytes, index: int) -> Pixels:
        """Samples (h, w, s) of one segment."""
        height = size.height if page.is_tiled else min(size.height, rows - index % per_plane * size.height)
        shape = (height, size.width, samples) if samples > 1 else (height, size.width)
        file = io.BytesIO()
        tifffile.imwrite(
            file,
            iter([data]),
            shape=shape,
            dtype=dtype,
            byteorder=page.parent.byteorder,
            compression="lzw",
            predictor=predictor > 1,
            photometric="rgb" if samples > 2 else "minisblack",
            planarconfig="contig" if samples > 1 else None,
            extrasamples=["unspecified"] * (samples - 3) if samples > 3 else None,
            rowsperstrip=height,
            metadata=None,
        )
        decoded: Pixels = np.asarray(imagecodecs.tiff_decode(file.getvalue()), dtype)
        return decoded.reshape(height, size.width, samples)

    return by_libtiff
