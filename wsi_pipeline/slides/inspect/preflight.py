"""A quick check of a slide before a run: file facts, and a few regions decoded to find damage and estimate tissue."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.files.addresses import is_address
from wsi_pipeline.files.dicom_header import read_dicom_header
from wsi_pipeline.files.path_choices import split_choice
from wsi_pipeline.geometry import Box
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.remote.skeleton import skeleton
from wsi_pipeline.remote.tiff_directories import is_tiff
from wsi_pipeline.remote.whole_file import kept_whole
from wsi_pipeline.slides.inspect.identity import quick_digest, size_in_bytes
from wsi_pipeline.slides.inspect.sniff import refusal
from wsi_pipeline.slides.slide import Slide, SlideInfo
from wsi_pipeline.slides.tiff.tiff_check import TIFF_MAGIC, compression_of

SAMPLES_ACROSS = 3
MAX_OVERVIEW_PIXELS = 1 << 22
"""A coarsest level up to this size (4 Mpx) is read in full: it decodes in tenths of a second and shows the tissue."""

_STEP = 4
"""Every fourth pixel of a region is enough to estimate its tissue fraction."""

_COLOURED, _DARK = 18, 170
"""Tissue, roughly: channels differ by more than this, or the mean is darker. For an estimate of patches only."""

_COVERED = 0.5
"""Least part of a region that is tissue, for its quality to be looked at."""

UNKNOWN_CODEC = "-"
_TIFF_CODECS = {
    1: "none",
    5: "LZW",
    6: "JPEG (old)",
    7: "JPEG",
    8: "Deflate",
    22610: "JPEG XR",
    32773: "PackBits",
    32946: "Deflate",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG",
    34712: "JPEG 2000",
    34892: "JPEG",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_DICOM_CODECS = {
    "1.2.840.10008.1.2": "none",
    "1.2.840.10008.1.2.1": "none",
    "1.2.840.10008.1.2.4.50": "JPEG",
    "1.2.840.10008.1.2.4.51": "JPEG",
    "1.2.840.10008.1.2.4.90": "JPEG 2000",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE",
}


@dataclass(frozen=True)
class FileFacts:
    """Size over all parts, codec, and a quick digest that identifies copies."""

    nbytes: int
    codec: str
    digest: str


@dataclass(frozen=True, eq=False)
class Look:
    """Measurements from a brief look at an open slide.

    tissue              bool (h, w) spanning the slide, from its coarsest level; None if that is too large
    fraction            tissue fraction of the slide: from `tissue`, else from the nine regions
    pixels_per_second   decoding speed in this process
    sample              the region uint8 (side, side, 3) with the most tissue, as it would be read for a patch
    covered             the regions of which at least half is tissue
    overview            the coarsest level uint8 (h, w, 3); None if that is too large
    """

    tissue: NDArray[np.bool_] | None
    fraction: float
    pixels_per_second: float
    sample: NDArray[np.uint8]
    covered: tuple[NDArray[np.uint8], ...] = ()
    overview: NDArray[np.uint8] | None = None


def file_facts(path: Path) -> FileFacts:
    """Size, codec and digest of a slide; reads less than 1 MB. Raises SlideError if it cannot be read."""
    try:
        nbytes, digest = size_in_bytes(path), quick_digest(path)
    except OSError as error:
        raise refusal(error, path) from error
    try:
        return FileFacts(nbytes, codec_of(path), digest)
    except (SlideError, OSError):  # broken headers; opening the slide will report them
        return FileFacts(nbytes, UNKNOWN_CODEC, digest)


def codec_of(path: Path) -> str:
    """How pixels are compressed, by the headers alone: `JPEG`, `JPEG 2000`, `compression 52479`; `-` if unknown.

    For a folder, the codec of its first DICOM file. Raises OSError if the file cannot be read.
    """
    path = split_choice(path)[0]
    if is_address(path):
        return _codec_at_address(path)
    if path.is_dir():
        first = next((file for file in sorted(path.iterdir()) if file.suffix.lower() == ".dcm"), None)
        return codec_of(first) if first is not None and first.is_file() else UNKNOWN_CODEC
    with path.open("rb") as file:
        is_tiff = file.read(4) in TIFF_MAGIC
    if is_tiff:
        code = compression_of(path)
        return UNKNOWN_CODEC if code is None else _TIFF_CODECS.get(code, f"compression {code}")
    header = read_dicom_header(path)
    syntax = header.transfer_syntax if header else ""
    return _DICOM_CODECS.get(syntax, f"transfer syntax {syntax}") if syntax else UNKNOWN_CODEC


def _codec_at_address(path: Path) -> str:
    with closing(RemoteFile(path)) as file:
        copy = kept_whole(file)
        if copy is not None:
            return codec_of(copy)
        if not file.ranges or not is_tiff(file.read(0, 4)):
            return UNKNOWN_CODEC
        with skeleton(file) as stand_in:
            return codec_of(stand_in)


def look(slide: Slide, level: int, side: int) -> Look:
    """Decode nine regions of `level` spread over the slide, its last pixels, and its coarsest level if that is small.

    side   of each region, pixels of `level`

    Raises SlideError naming the position if the copy is truncated there or the data does not decode.
    """
    started, pixels = time.perf_counter(), 0
    samples = []
    for box in sample_boxes(slide.info, level, side):
        samples.append(_read(slide, level, box))
        pixels += box.width * box.height
    parts = [float(looks_like_tissue(sample[::_STEP, ::_STEP]).mean()) for sample in samples]
    best = samples[int(np.argmax(parts))]
    tissue = overview = None
    covered = tuple(sample for sample, part in zip(samples, parts, strict=True) if part >= _COVERED)
    coarsest = len(slide.info.levels) - 1
    size = slide.info.levels[coarsest].size
    if size.pixels <= MAX_OVERVIEW_PIXELS:
        overview = slide.read_region(0, 0, coarsest, size.width, size.height)
        tissue = looks_like_tissue(overview)
        pixels += size.pixels
    fraction = float(np.mean(parts[: SAMPLES_ACROSS**2] if tissue is None else tissue))
    return Look(tissue, fraction, pixels / max(1e-6, time.perf_counter() - started), best, covered, overview)


def sample_boxes(info: SlideInfo, level: int, side: int) -> list[Box]:
    """Nine squares in the middle of the ninths of a level, row by row, then one in its last corner; in its pixels.

    Squares are cut to the level where it is smaller than `side`.
    """
    size = info.levels[level].size
    width, height = min(side, size.width), min(side, size.height)
    middles = [(2 * k + 1) / (2 * SAMPLES_ACROSS) for k in range(SAMPLES_ACROSS)]
    boxes = [Box(_start(x, size.width, width), _start(y, size.height, height), width, height)
             for y in middles for x in middles]  # fmt: skip
    return [*boxes, Box(size.width - width, size.height - height, width, height)]


def _start(middle: float, length: int, side: int) -> int:
    return min(max(0, round(middle * length - side / 2)), length - side)


def _read(slide: Slide, level: int, box: Box) -> NDArray[np.uint8]:
    down = slide.info.levels[level].downsample
    return slide.read_region(round(box.x * down), round(box.y * down), level, box.width, box.height)


def looks_like_tissue(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Coloured or dark pixels of uint8 (h, w, 3): a rough mask for estimates, not the tissue detector."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    total = red.astype(np.uint16) + green + blue
    return (high - low > _COLOURED) | (total < 3 * _DARK)
