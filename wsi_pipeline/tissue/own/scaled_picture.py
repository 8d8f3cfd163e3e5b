"""A mask picture whose scale the user states: it need not span the slide, nor have its shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size

_SAME = 0.01
"""Relative difference of sizes that rounding may make."""


def place_scaled(
    marked: NDArray[np.bool_], name: str, slide: Size, bounds: Box | None, mask: Size, shrink: float
) -> tuple[NDArray[np.bool_], float]:
    """A mask (h, w) of the whole slide of size `mask`, and the fraction of the marked area that lies off the slide.

    marked   pixels of the picture (h, w); its corner is the slide's, or that of the bounds if it has their size
    shrink   level-0 pixels per pixel of the picture

    A pixel of the mask is marked if the picture's pixel at its centre is; finer pictures are first shrunk to about its
    pixels, where at least half of a pixel must be marked. Raises SlideError for a scale that makes the picture smaller
    than a mask pixel.
    """
    height, width = marked.shape
    x, y = _corner(width * shrink, height * shrink, slide, bounds)
    across, down = slide.width / mask.width, slide.height / mask.height
    small = min(width, round(width * shrink / across)), min(height, round(height * shrink / down))
    if min(small) < 1:
        raise SlideError(
            f"tissue mask {name} of {width} x {height} pixels covers less than a pixel of the slide's mask",
            todo="Check the column tissue_mpp: it is the micrometres per pixel of the mask.",
        )
    off = _part_off(marked, slide, x, y, shrink)
    if small != (width, height):
        picture = Image.fromarray(np.where(marked, np.uint8(255), np.uint8(0)))
        marked = np.asarray(picture.resize(small, Image.Resampling.BOX)) >= 128
    step = width * shrink / marked.shape[1], height * shrink / marked.shape[0]
    columns = np.floor(((np.arange(mask.width) + 0.5) * across - x) / step[0]).astype(np.int64)
    rows = np.floor(((np.arange(mask.height) + 0.5) * down - y) / step[1]).astype(np.int64)
    found = np.zeros((mask.height, mask.width), np.bool_)
    in_x, in_y = (columns >= 0) & (columns < marked.shape[1]), (rows >= 0) & (rows < marked.shape[0])
    found[np.ix_(in_y, in_x)] = marked[np.ix_(rows[in_y], columns[in_x])]
    return found, off


def _corner(width: float, height: float, slide: Size, bounds: Box | None) -> tuple[int, int]:
    """Level-0 position of the picture's corner: (0, 0) unless it has the size of the bounds and not of the slide."""
    if bounds is None or _alike(width, height, slide):
        return 0, 0
    return (bounds.x, bounds.y) if _alike(width, height, Size(bounds.width, bounds.height)) else (0, 0)


def _alike(width: float, height: float, size: Size) -> bool:
    return abs(width / max(size.width, 1) - 1) <= _SAME and abs(height / max(size.height, 1) - 1) <= _SAME


def _part_off(marked: NDArray[np.bool_], slide: Size, x: int, y: int, shrink: float) -> float:
    """Part of the marked pixels whose centres lie off the slide."""
    total = int(marked.sum())
    columns, rows = (start + (np.arange(n) + 0.5) * shrink for start, n in ((x, marked.shape[1]), (y, marked.shape[0])))
    inside = marked[np.ix_((rows >= 0) & (rows < slide.height), (columns >= 0) & (columns < slide.width))]
    return 1 - int(inside.sum()) / total if total else 0.0
