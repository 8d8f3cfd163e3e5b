"""Decoders of single TIFF tiles, at full size or shrunk while decoding. They release the GIL.

JPEG goes through libjpeg-turbo with its exact settings (accurate integer DCT, smooth chroma upsampling), so pixels
equal OpenSlide's. It shrinks by 2, 4 and 8 in the DCT domain, which leaves pixel centres where the area mean has them.
Components that are coarser along one axis than along the other would not stay in place: there it shrinks by 2 at most
(4:2:2 and 4:4:0, off by less than a tenth of a result pixel), or not at all (4:1:1, RGB).

JPEG 2000 goes through OpenJPEG. Its reduced images are low-pass bands whose samples sit on every second (fourth ...)
pixel, not between them, and sharper than an area mean, so one level more than needed is decoded and brought into place
by an area filter.

LZW, Deflate and uncompressed tiles go through libtiff or tifffile, as those of strips do.
"""

from __future__ import annotations

import io
from typing import Protocol

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.tiff.decode import Decoder
from wsi_pipeline.slides.tiles.jpeg_stream import YCBCR_TRANSFORM, head_of, whole

Pixels = NDArray[np.uint8]
_MAX_LEVELS_FIELD = 9
_COD = b"\xff\x52"


class TileCodec(Protocol):
    """Decodes the tiles of one level.

    scales   whole-number shrinks it can do while decoding, ascending from 1; each divides both sides of a tile
    """

    scales: tuple[int, ...]

    def decode(self, data: bytes, shrink: int, out: Pixels | None) -> Pixels:
        """Compressed bytes to RGB (h / shrink, w / shrink, 3), possibly in `out`. Raises one of DECODE_ERRORS."""

    def as_jpeg(self, data: bytes) -> bytes | None:
        """The tile as a JPEG file, or None if it is stored otherwise."""


class JpegCodec:
    """JPEG tiles of `tile` pixels.

    tables      as in tag 347
    transform   0 for RGB, 1 for YCbCr
    chroma      how many pixels across and down one sample of the coarsest component spans
    """

    def __init__(self, tile: Size, tables: bytes | None, transform: int, chroma: tuple[int, int]) -> None:
        self.tile = tile
        self.scales = _dividing(_steps_in_place(transform, chroma), tile)
        self._head = head_of(tables, transform)
        self._plain = not tables and transform == YCBCR_TRANSFORM

    def decode(self, data: bytes, shrink: int, out: Pixels | None) -> Pixels:
        """One tile: see `TileCodec.decode`."""
        height, width = self.tile.height // shrink, self.tile.width // shrink
        file = data if self._is_whole(data) else self.as_jpeg(data)
        pixels: Pixels = simplejpeg.decode_jpeg(file, "RGB", min_height=height, min_width=width, buffer=out)
        return pixels

    def as_jpeg(self, data: bytes) -> bytes:
        """The tile with the shared tables and its colours stated."""
        return whole(self._head, data)

    def _is_whole(self, data: bytes) -> bool:
        """Whether the stream is a JFIF file already, whose colours are always YCbCr: the usual case, not copied."""
        return self._plain and data[:4] == b"\xff\xd8\xff\xe0" and data[6:10] == b"JFIF"


class Jpeg2000Codec:
    """JPEG 2000 tiles of `tile` pixels that hold RGB and `levels` wavelet levels."""

    def __init__(self, tile: Size, levels: int) -> None:
        self.tile = tile
        self.scales = _dividing((1, *(step for step in (4, 8, 16) if step <= 2 << levels)), tile)

    def decode(self, data: bytes, shrink: int, out: Pixels | None) -> Pixels:
        """One tile: see `TileCodec.decode`."""
        if shrink == 1:
            pixels: Pixels = np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=1))
            return pixels
        image = Image.open(io.BytesIO(data), formats=("JPEG2000",))
        image.reduce = shrink.bit_length() - 2  # type: ignore[method-assign, assignment]
        return _between(np.asarray(image), shrink // 2)

    def as_jpeg(self, data: bytes) -> None:
        """None: the tile is not a JPEG."""


class LosslessCodec:
    """Tiles of RGB without loss: LZW, Deflate, or not compressed.

    decoder   of the page
    """

    scales: tuple[int, ...] = (1,)

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def decode(self, data: bytes, shrink: int, out: Pixels | None) -> Pixels:
        """One tile: see `TileCodec.decode`."""
        return self._decoder(data, 0)

    def as_jpeg(self, data: bytes) -> None:
        """None: the tile is not a JPEG."""


def wavelet_levels(data: bytes) -> int:
    """How often a JPEG 2000 codestream can be halved (ITU-T T.800 annex A.6.1); 0 if it does not say."""
    at = data.find(_COD)
    return data[at + _MAX_LEVELS_FIELD] if 0 <= at < len(data) - _MAX_LEVELS_FIELD else 0


def _steps_in_place(transform: int, chroma: tuple[int, int]) -> tuple[int, ...]:
    """Shrinks in the DCT domain that move no component against the area mean."""
    if chroma[0] == chroma[1]:
        return 1, 2, 4, 8
    return (1, 2) if transform == YCBCR_TRANSFORM and max(chroma) == 2 else (1,)


def _dividing(steps: tuple[int, ...], tile: Size) -> tuple[int, ...]:
    return tuple(step for step in steps if not tile.width % step and not tile.height % step)


def _between(band: Pixels, step: int) -> Pixels:
    """A low-pass band (h, w, 3), whose samples sit on every `step`-th pixel, as means of 2 * step pixels.

    Returns (h / 2, w / 2, 3). Along each axis mean n spans pixels 2n * step to (2n + 2) * step - 1. Each sample counts
    with that part of the `step` pixels around it that lies in the span; beyond the tile the last sample is repeated.
    """
    weights = np.array([step / 2 + 0.5, step, step / 2 - 0.5], np.float32) / np.float32(2 * step)
    rows = np.concatenate([band, band[-1:]])
    mixed = weights[0] * rows[:-1:2] + weights[1] * rows[1:-1:2] + weights[2] * rows[2::2]
    columns = np.concatenate([mixed, mixed[:, -1:]], axis=1)
    mixed = weights[0] * columns[:, :-1:2] + weights[1] * columns[:, 1:-1:2] + weights[2] * columns[:, 2::2]
    return np.asarray(mixed + np.float32(0.5), np.uint8)
