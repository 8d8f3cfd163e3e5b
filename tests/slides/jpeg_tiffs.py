"""Writers of tiled JPEG TIFF in the dialects of scanners: colours, chroma, shared tables, BigTIFF, sparse, SubIFDs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
import tifffile

from tests.slide_files import Pixels, shrunk

_SUBSAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "440": (2, 2), "411": (4, 1)}
"""As tag 530 says it; tifffile refuses (1, 2), and readers go by the streams anyway."""
_DQT, _DHT, _SOS = 0xDB, 0xC4, 0xDA


@dataclass(frozen=True)
class Dialect:
    """How a file is written.

    rgb       RGB JPEGs without any marker that says so, under photometric RGB; else YCbCr
    chroma    subsampling, where it is not RGB
    tables    quantisation and Huffman tables shared in tag 347
    jfif      JFIF markers are left in the streams
    """

    rgb: bool = False
    chroma: str = "420"
    tables: bool = False
    jfif: bool = True
    bigtiff: bool = False
    tile: int = 128
    quality: int = 85


def write_jpeg_tiff(
    path: Path,
    image: Pixels,
    dialect: Dialect,
    *,
    levels: tuple[int, ...] = (1,),
    missing: Collection[int] = (),
    aperio: bool = True,
    subifds: bool = False,
) -> Path:
    """Write a tiled pyramid; `missing` tiles (by number) of level 0 are left out."""
    description = f"Aperio Image Library v12.0.0 \r\n{image.shape[1]}x{image.shape[0]}|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path, bigtiff=dialect.bigtiff) as writer:
        for step in levels:
            pixels = image if step == 1 else shrunk(image, step)
            streams = list(_streams(pixels, dialect))
            tables = _tables(streams[0]) if dialect.tables else None
            kept = [b"" if step == 1 and k in missing else _stripped(s, dialect) for k, s in enumerate(streams)]
            writer.write(
                iter(kept), shape=pixels.shape, dtype=np.uint8, tile=(dialect.tile, dialect.tile), metadata=None,
                photometric="rgb" if dialect.rgb else "ycbcr", compression="jpeg", jpegtables=tables,
                compressionargs={"outcolorspace": "rgb"} if dialect.rgb else None,
                subsampling=_SUBSAMPLING["444" if dialect.rgb else dialect.chroma],
                description=description if aperio and step == 1 else None,
                subifds=len(levels) - 1 if subifds and step == 1 else None,
                subfiletype=1 if step > 1 else 0,
            )  # fmt: skip
    return path


def _streams(pixels: Pixels, dialect: Dialect) -> Iterator[bytes]:
    """Whole JPEGs of all tiles, row by row; the last ones repeat the edge."""
    side, (height, width) = dialect.tile, pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge")
    for y in range(0, height, side):
        for x in range(0, width, side):
            tile = np.ascontiguousarray(padded[y : y + side, x : x + side])
            if dialect.rgb:
                yield imagecodecs.jpeg8_encode(tile, level=dialect.quality, colorspace="rgb", outcolorspace="rgb")
            else:
                yield simplejpeg.encode_jpeg(tile, dialect.quality, "RGB", dialect.chroma)


def segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker code, bytes) of each marker segment; the last is the scan to the end."""
    at = 2
    while True:
        code = stream[at + 1]
        if code == _SOS:
            yield code, stream[at:]
            return
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        yield code, stream[at:end]
        at = end


def _tables(stream: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(data for code, data in segments(stream) if code in (_DQT, _DHT)) + b"\xff\xd9"


def _stripped(stream: bytes, dialect: Dialect) -> bytes:
    """The stream as it lies in the file. RGB streams lose every marker that names their colours."""
    gone = {_DQT, _DHT} if dialect.tables else set()
    if dialect.rgb or not dialect.jfif:
        gone |= {0xE0, 0xEE}
    kept = [(code, data) for code, data in segments(stream) if code not in gone]
    parts = [_numbered(data) if dialect.rgb and code in (0xC0, _SOS) else data for code, data in kept]
    return b"\xff\xd8" + b"".join(parts)


def _numbered(data: bytes) -> bytes:
    """Components named 0, 1, 2, as Aperio does, instead of R, G, B."""
    start, step = (10, 3) if data[1] == 0xC0 else (5, 2)
    named = bytearray(data)
    for number in range(3):
        named[start + step * number] = number
    return bytes(named)
