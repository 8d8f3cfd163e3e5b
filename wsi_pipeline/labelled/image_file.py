"""One image file as uint8 RGB on white, bounded and checked; Pillow first, tifffile for formats Pillow cannot read."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_pipeline.errors import LabelError
from wsi_pipeline.geometry import Size
from wsi_pipeline.reading.patch_reader import shrink_to
from wsi_pipeline.slides.tiff.decode import PICTURE_ERRORS
from wsi_pipeline.slides.to_rgb import grey_to_rgb, on_white

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".jp2"})
"""Files that count as images when a folder is listed; a file named in a CSV may have any suffix."""

MAX_IMAGE_PIXELS = 1 << 26
"""Largest image (64 Mpx, 8192 x 8192); anything larger is a slide."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
"""Sizes are checked here before pixels are decoded; Pillow's warning would only be printed beside our refusal."""

_PLANES, _BITS = 284, 258
"""TIFF tags: PlanarConfiguration (2: one plane after the other) and BitsPerSample."""

_SEGMENTS = ((273, 279), (324, 325))
"""TIFF tags: offsets and byte counts of strips, of tiles."""

_STAMP_BYTES, _HEAD_BYTES, _TAIL_BYTES = 8192, 16, 4096
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_THREADS = 8


@dataclass(frozen=True)
class ImageFact:
    """Facts about an image file without decoding it: its size, and a stamp of its length and bytes from its middle."""

    size: Size
    stamp: str


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode one image as RGB (h, w, 3), transparent pixels white.

    16-bit samples keep their upper 8 bits; grey, palette and CMYK become RGB; of several pages the first is used.
    EXIF orientation is not applied. Raises LabelError for a file that is not an image, is damaged, or is too large.
    """
    try:
        with Image.open(path) as image:
            _bound(Size(image.width, image.height))
            if not _is_misread(image):
                return _to_rgb(image)
    except UnidentifiedImageError:
        pass
    except PICTURE_ERRORS as error:
        raise LabelError(_why(error)) from error
    return _read_tiff(path)


def probe_image(path: Path) -> ImageFact:
    """Size and stamp of an image file. A file that seems truncated is decoded at once to find out.

    Raises LabelError for a file that is missing, not an image, damaged, or too large.
    """
    try:
        with path.open("rb") as file:
            length, head = os.fstat(file.fileno()).st_size, file.read(_HEAD_BYTES)
            file.seek(max(0, (length - _STAMP_BYTES) // 2))
            middle = file.read(_STAMP_BYTES)
            file.seek(max(0, length - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except FileNotFoundError:
        raise LabelError("no such file") from None
    except (OSError, ValueError) as error:  # a null character in the name is a ValueError
        raise LabelError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if length == 0:
        raise LabelError("empty file")
    stamp = f"{length}-{hashlib.sha256(middle).hexdigest()[:24]}"
    return ImageFact(_size(path, length, head, tail), stamp)


def probe_images(paths: Sequence[Path]) -> list[ImageFact | LabelError]:
    """`probe_image` of many files, in threads (network folders answer slowly); errors are returned, not raised."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="probe") as pool:
        return list(pool.map(_try_probe, paths))


def content_digests(paths: Sequence[Path], stamps: Sequence[str]) -> list[str]:
    """A digest per file, equal only for equal bytes; only files that share a stamp are read in full.

    stamps   `ImageFact.stamp` of each file

    Raises OSError if a file has disappeared.
    """
    counts = Counter(stamps)
    return [
        stamp if counts[stamp] == 1 else f"{stamp}-{_sha256(path)}" for path, stamp in zip(paths, stamps, strict=True)
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fit_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The centred square of an image (h, w, 3) at `side` pixels: shrunk by area, enlarged bicubically.

    Cropping preserves shapes; squeezing an oblong image into a square would not.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return shrink_to(np.ascontiguousarray(image[top : top + short, left : left + short]), side)


def _try_probe(path: Path) -> ImageFact | LabelError:
    try:
        return probe_image(path)
    except LabelError as error:
        return error


def _size(path: Path, length: int, head: bytes, tail: bytes) -> Size:
    try:
        with Image.open(path) as image:
            size = Size(image.width, image.height)
            _bound(size)
            whole = _seems_whole(image, length, head, tail)
    except UnidentifiedImageError:
        size, whole = _tiff_size(path), True
    except PICTURE_ERRORS as error:
        raise LabelError(_why(error)) from error
    if not whole:
        read_image(path)
    return size


def _seems_whole(image: Image.Image, length: int, head: bytes, tail: bytes) -> bool:
    """Whether a file's length and end match its format; False for formats that do not state them."""
    if image.format in _ENDS:
        return _ENDS[image.format] in tail
    if image.format == "WEBP":
        return length >= int.from_bytes(head[4:8], "little") + 8
    tags = getattr(image, "tag_v2", {})
    for offsets, counts in _SEGMENTS:
        if offsets in tags and counts in tags:
            return max(map(sum, zip(tags[offsets], tags[counts], strict=True)), default=0) <= length
    return False


def _bound(size: Size) -> None:
    if size.pixels > MAX_IMAGE_PIXELS:
        raise LabelError(
            f"{size.width} x {size.height} pixels exceed the limit of {MAX_IMAGE_PIXELS} for an image: is it a slide?"
        )


def _is_misread(image: Image.Image) -> bool:
    """Whether it is a TIFF that Pillow (13.0) scrambles without an error: 16-bit colours in separate planes."""
    tags = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and tags.get(_PLANES) == 2 and max(tags.get(_BITS, (8,))) > 8


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if deep:
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return grey_to_rgb(grey[..., None])
    if image.mode in ("I", "F"):
        raise LabelError(f"32-bit pixels (mode {image.mode}) have no known value range: save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return on_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _tiff_size(path: Path) -> Size:
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            size = Size(int(page.imagewidth), int(page.imagelength))
    except PICTURE_ERRORS as error:
        raise LabelError("not a readable image") from error
    _bound(size)
    return size


def _read_tiff(path: Path) -> NDArray[np.uint8]:
    """The first page of a TIFF with grey, RGB or RGBA samples of 8 or 16 bit."""
    _tiff_size(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            samples, separate = np.asarray(page.asarray()), int(page.planarconfig) == 2
    except PICTURE_ERRORS as error:
        raise LabelError(_why(error)) from error
    samples = samples[..., None] if samples.ndim == 2 else samples
    samples = np.moveaxis(samples, 0, -1) if separate and samples.ndim == 3 else samples
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.dtype != np.uint8 or samples.ndim != 3 or samples.shape[2] not in (1, 3, 4):
        raise LabelError(f"TIFF with samples {samples.dtype} {samples.shape}: save it as 8-bit RGB")
    if samples.shape[2] == 4:
        return on_white(samples)
    return grey_to_rgb(samples) if samples.shape[2] == 1 else np.ascontiguousarray(samples)


def _why(error: BaseException) -> str:
    if isinstance(error, LabelError):
        return error.what
    if isinstance(error, Image.DecompressionBombError):
        return f"its pixels exceed the limit of {MAX_IMAGE_PIXELS} for an image: is it a slide?"
    return f"damaged image ({error})"
