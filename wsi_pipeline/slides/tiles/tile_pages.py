"""Which TIFF directory each level of a slide lies in, and whether its tiles can be decoded here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.tiff.decode import PARSE_ERRORS, decoder_of
from wsi_pipeline.slides.tiff.directories import every_page
from wsi_pipeline.slides.tiff.slide_image import SlideImage
from wsi_pipeline.slides.tiles.jpeg_stream import RGB_TRANSFORM, YCBCR_TRANSFORM, chroma_step
from wsi_pipeline.slides.tiles.tile_check import sampled_of_page
from wsi_pipeline.slides.tiles.tile_codec import Jpeg2000Codec, JpegCodec, LosslessCodec, TileCodec, wavelet_levels
from wsi_pipeline.slides.tiles.tile_level import ExpectsRanges, TileBytes, TiledLevel, TileSource

log = logging.getLogger(__name__)

_JPEG, _JPEG2000 = 7, (33004, 33005, 34712)
_LOSSLESS = (1, 5, 8, 32946)
"""Not compressed, LZW, and Deflate under both of its numbers."""
_RGB, _YCBCR = 2, 6
_HEADER_BYTES = 1 << 16


def tiled_levels(
    path: Path, other: Slide, image: SlideImage, source: TileSource | None = None
) -> dict[int, TiledLevel]:
    """The levels of `other` (the same `image` in another backend) whose tiles can be decoded here, by their numbers.

    source   where the tiles are read from; None: `path`

    Raises SlideError, saying why, if level 0 cannot.
    """
    if not image.as_stored:
        raise SlideError("a channel, a display range or an orientation is applied to its tiles")
    if len(image.levels) != len(other.info.levels):
        raise SlideError(f"{other.info.backend} does not see all of its levels")
    file, found = source or TileBytes(path), {}
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = every_page(tiff)
            if isinstance(file, ExpectsRanges):
                file.expect([_head(pages[level[0].offset]) for level in image.levels], in_order=False)
            for number, level in enumerate(image.levels):
                try:
                    page = _tiled(pages[level[0].offset])
                    found[number] = TiledLevel(page, number, file, _codec(page, file))
                except SlideError as error:
                    if number == 0:
                        raise
                    log.info("%s: level %d is read by %s: %s", path.name, number, other.info.backend, error.what)
    except SlideError:
        raise
    except (*PARSE_ERRORS, MemoryError) as error:
        raise SlideError(f"its TIFF directories cannot be parsed ({type(error).__name__}: {error})") from error
    return _without_repaired(found, other)


def opening_ranges(path: Path, image: SlideImage) -> list[tuple[int, int]]:
    """(start, stop) of all tiles, or beginnings of tiles, that are looked at when a slide is opened.

    Empty for slides whose directories do not parse, or whose tiles are not decoded here.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = every_page(tiff)
            levels = [pages[level[0].offset] for level in image.levels]
            if not all(page.is_tiled and int(page.compression) in (_JPEG, *_JPEG2000, *_LOSSLESS) for page in levels):
                return []
            heads = [_head(page) for page in levels]
            return heads + [part for number, page in enumerate(levels) for part in sampled_of_page(number, page)]
    except (*PARSE_ERRORS, MemoryError):
        return []


def _tiled(page: Any) -> Any:
    if not page.is_tiled:
        raise SlideError("it is stored in strips")
    return page


def _codec(page: Any, file: TileSource) -> TileCodec:
    """The decoder of a page's tiles; raises SlideError saying what is not decoded here."""
    compression, photometric = int(page.compression), int(page.photometric)
    if int(page.samplesperpixel) != 3 or page.bitspersample != 8 or page.dtype != np.uint8:
        raise SlideError(f"{page.samplesperpixel} samples of {page.bitspersample} bits instead of three of 8 bits")
    if int(page.planarconfig) != 1 or int(page.imagedepth) != 1 or int(page.fillorder) != 1:
        raise SlideError("colours in separate planes, a volume, or bits in reverse order")
    tile = Size(int(page.tilewidth), int(page.tilelength))
    if compression == _JPEG and photometric in (_RGB, _YCBCR):
        transform = RGB_TRANSFORM if photometric == _RGB else YCBCR_TRANSFORM
        head = _first_bytes(page, file)
        return JpegCodec(tile, page.jpegtables, transform, chroma_step(head) if head else (1, 1))
    if compression in _JPEG2000 and photometric == _RGB:
        return Jpeg2000Codec(tile, wavelet_levels(_first_bytes(page, file)))
    if compression in _LOSSLESS and photometric == _RGB:
        return LosslessCodec(decoder_of(page))
    raise SlideError(f"compression {compression} of kind {page.photometric.name} is not decoded here")


def _first_bytes(page: Any, file: TileSource) -> bytes:
    """First bytes of the first existing tile, empty if there is none; all tiles of a level have the same format."""
    start, stop = _head(page)
    return file.read(start, stop - start) if stop > start else b""


def _head(page: Any) -> tuple[int, int]:
    """(start, stop) in the file of the beginning of the first existing tile; nothing if there is none."""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if offset and count:
            return offset, offset + min(count, _HEADER_BYTES)
    return 0, 0


def _without_repaired(levels: dict[int, TiledLevel], other: Slide) -> dict[int, TiledLevel]:
    """Without Aperio levels that lack tiles: OpenSlide fills those tiles from level 0, so it reads these levels."""
    if other.info.backend != "openslide" or other.info.vendor != "aperio":
        return levels
    if not any(level.missing.any() for level in levels.values()):
        return levels
    return {0: levels[0]}
