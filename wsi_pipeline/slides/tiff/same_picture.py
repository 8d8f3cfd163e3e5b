"""Whether one TIFF image is a smaller version of another, judged at a few places if the file's flags do not say."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.pixel_cache import PixelCache
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.slides.tiff.decode import PARSE_ERRORS
from wsi_pipeline.slides.tiff.tiff_segments import SegmentedImage

_PLACES = 5
_SIDE = 512
"""Pixels of the larger image, at most, across each place that is compared."""
_CACHE_BYTES = 64 << 20
_STEP = 4
"""Means of 4 x 4 pixels are compared, so that levels made by subsampling agree as well."""
_MOST_DIFFERENCE, _LEAST_CORRELATION, _FLAT = 12.0, 0.8, 2.0
"""For each place: largest mean difference (of 256 grey values), least correlation, and the standard deviation above
which the correlation counts."""


def same_picture(large: Any, small: Any) -> bool:
    """Whether tifffile page `small` is a smaller copy of `large`: their means agree at the places with most detail.

    False if they cannot be decoded here.
    """
    try:
        return _agree(_image(large, 0), _image(small, 1))
    except (*PARSE_ERRORS, SlideError):
        return False


def _image(page: Any, number: int) -> SegmentedImage:
    file = page.parent.filehandle

    def load(offset: int, count: int) -> bytes:
        file.seek(offset)
        data: bytes = file.read(count)
        return data

    return SegmentedImage(page, load, _grey, PixelCache(_CACHE_BYTES), number)


def _grey(samples: NDArray[Any]) -> NDArray[np.uint8]:
    mean = samples[..., :3].astype(np.float32).mean(axis=2, keepdims=True)
    scale = 1.0 if samples.dtype == np.uint8 else 255 / max(1.0, float(np.iinfo(samples.dtype).max))
    return np.repeat(np.asarray(mean * scale, np.uint8), 3, axis=2)


def _agree(large: SegmentedImage, small: SegmentedImage) -> bool:
    scale = large.size.width / small.size.width
    across = max(1, min(round(_SIDE / scale), small.size.width, small.size.height))
    detail = []
    for place in range(_PLACES * _PLACES):
        column, row = place % _PLACES, place // _PLACES
        x = round((small.size.width - across) * (column + 0.5) / _PLACES)
        y = round((small.size.height - across) * (row + 0.5) / _PLACES)
        pixels = small.read(Box(x, y, across, across))
        detail.append((float(pixels.std()), x, y, pixels))
    detail.sort(key=lambda item: -item[0])
    for _, x, y, pixels in detail[:_PLACES]:
        left, top, side = round(x * scale), round(y * scale), max(1, round(across * scale))
        box = Box(left, top, side, side).clipped(large.size)
        if box is None:
            return False
        coarse = Size(max(1, across // _STEP), max(1, across // _STEP))
        one, two = (area_resize(item, coarse)[..., 0].astype(np.float64) for item in (large.read(box), pixels))
        if float(np.abs(one - two).mean()) > _MOST_DIFFERENCE:
            return False
        if min(one.std(), two.std()) > _FLAT and np.corrcoef(one.ravel(), two.ravel())[0, 1] < _LEAST_CORRELATION:
            return False
    return True
