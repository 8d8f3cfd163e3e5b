"""A slide as windows at the resolution of a network, and the votes of their pixels for the pixels of a mask."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.thumbnail import best_level, read_whole
from wsi_pipeline.tissue_networks.published import WINDOW, Labels, Network

Picture = NDArray[np.uint8]

FLAT, BLOCK = 3.0, 16
"""A window whose means over blocks of the second many pixels differ by at most the first, in grey levels, is glass."""


class BoxReader(Protocol):
    """A whole slide at one resolution: `size` in pixels, and `read`, which returns a box of it as uint8 (h, w, 3)."""

    @property
    def size(self) -> Size: ...

    def read(self, box: Box) -> Picture: ...


class WholePicture:
    """A slide read in one piece, for coarse resolutions; compressed as JPEG if the network was trained on that.

    mpp      micrometres per level-0 pixel
    target   micrometres per pixel wanted
    """

    def __init__(self, slide: Slide, mpp: float, target: float, jpeg: int = 0) -> None:
        picture = read_whole(slide, mpp, target)
        self._picture = recompressed(picture, jpeg) if jpeg else picture
        self.size = Size(picture.shape[1], picture.shape[0])

    def read(self, box: Box) -> Picture:
        """Pixels of a box."""
        return self._picture[box.y : box.y + box.height, box.x : box.x + box.width]


class SlideBoxes:
    """A slide read box by box, for resolutions at which it does not fit in memory.

    Boxes are read from the coarsest level that is at least as fine, from its nearest pixel, and shrunk by area means.
    """

    def __init__(self, slide: Slide, mpp: float, target: float) -> None:
        full = slide.info.size
        self.size = Size(*(max(1, round(side * mpp / target)) for side in (full.width, full.height)))
        self._slide, self._number = slide, best_level(slide.info.levels, target / mpp)

    def read(self, box: Box) -> Picture:
        """Pixels of a box."""
        level, full = self._slide.info.levels[self._number], self._slide.info.size
        across, down = level.size.width / self.size.width, level.size.height / self.size.height
        width, height = max(1, round(box.width * across)), max(1, round(box.height * down))
        x, y = round(box.x * full.width / self.size.width), round(box.y * full.height / self.size.height)
        return area_resize(self._slide.read_region(x, y, self._number, width, height), Size(box.width, box.height))


def recompressed(picture: Picture, quality: int) -> Picture:
    """The picture after JPEG compression, as GrandQC's scripts do it: through OpenCV, which takes red for blue."""
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture[..., ::-1])).save(out, "JPEG", quality=quality)
    return np.ascontiguousarray(np.asarray(Image.open(out))[..., ::-1])


class Votes:
    """How many points of each mask pixel each class got; a point counts for the canvas pixel that it lies in.

    Each mask pixel has n x n evenly spaced points, as many as it spans canvas pixels.
    """

    def __init__(self, canvas: Size, mask: Size, classes: int) -> None:
        self._x = _points(canvas.width, mask.width)
        self._y = _points(canvas.height, mask.height)
        self.counts = np.zeros((classes, mask.height, mask.width), np.uint32)

    def add(self, labels: Labels, box: Box) -> None:
        """Count the classes (h, w) of the canvas pixels of a box. Boxes must not overlap."""
        rows, down = _within(self._y, box.y, box.height)
        columns, across = _within(self._x, box.x, box.width)
        if not len(rows) or not len(columns):
            return
        points = labels[np.ix_(rows, columns)]
        row_starts, row_numbers = _runs(down)
        column_starts, column_numbers = _runs(across)
        for number in np.unique(points):
            hits = np.add.reduceat((points == number).astype(np.uint32), row_starts, axis=0)
            hits = np.add.reduceat(hits, column_starts, axis=1)
            self.counts[number][np.ix_(row_numbers, column_numbers)] += hits

    def share(self, numbers: tuple[int, ...]) -> NDArray[np.float32]:
        """Fraction of each mask pixel's counted points with one of these classes, (h, w); 0 where none was counted."""
        total = self.counts.sum(axis=0)
        found = self.counts[list(numbers)].sum(axis=0)
        return np.asarray(found / np.maximum(total, 1), np.float32)


def run_windows(
    canvas: BoxReader, network: Network, votes: Votes, glass: int, wanted: Callable[[Box], bool] | None = None,
) -> int:  # fmt: skip
    """Run a network over all windows of a canvas and count its classes; returns the number of windows it was run on.

    glass    class of the pixels of windows of one flat colour, on which the network is not run
    wanted   whether a window is needed at all; the others are not read and get no votes

    The last window of a row or column is moved back to the edge and counts only where no earlier one did, as in
    GrandQC's scripts. A canvas smaller than a window is filled up with white.
    """
    count = 0
    for window, fresh in windows_of(canvas.size):
        if wanted is not None and not wanted(fresh):
            continue
        picture = canvas.read(window)
        if is_flat(picture):
            labels = np.full((fresh.height, fresh.width), glass, np.uint8)
        else:
            height, width = picture.shape[:2]
            full = np.full((WINDOW, WINDOW, 3), 255, np.uint8)
            full[:height, :width] = picture
            top, left = fresh.y - window.y, fresh.x - window.x
            labels = network(full[None])[0][top : top + fresh.height, left : left + fresh.width]
            count += 1
        votes.add(labels, fresh)
    return count


def windows_of(size: Size) -> Iterator[tuple[Box, Box]]:
    """The windows of a canvas in rows: what is read, and the part of it that no earlier window covered."""
    for y in range(0, size.height, WINDOW):
        for x in range(0, size.width, WINDOW):
            width, height = min(WINDOW, size.width - x), min(WINDOW, size.height - y)
            left, top = max(0, min(x, size.width - WINDOW)), max(0, min(y, size.height - WINDOW))
            whole = Box(left, top, min(WINDOW, size.width), min(WINDOW, size.height))
            yield whole, Box(x, y, width, height)


def is_flat(picture: Picture) -> bool:
    """Whether a picture (h, w, 3) has one colour throughout, but for noise: bare glass or padding."""
    height, width = (side // BLOCK * BLOCK for side in picture.shape[:2])
    if not height or not width:
        return False
    blocks = picture[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3)
    means = blocks.mean(axis=(1, 3), dtype=np.float32)
    return bool((means.max(axis=(0, 1)) - means.min(axis=(0, 1)) <= FLAT).all())


def _points(canvas: int, mask: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """BoxReader pixel and mask pixel of every point along one axis, in order."""
    each = max(1, -(-canvas // mask))
    place = (np.arange(mask * each) + 0.5) / (mask * each)
    return np.minimum((place * canvas).astype(np.intp), canvas - 1), np.repeat(np.arange(mask), each)


def _within(
    points: tuple[NDArray[np.intp], NDArray[np.intp]], start: int, length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    first, last = np.searchsorted(points[0], (start, start + length))
    return points[0][first:last] - start, points[1][first:last]


def _runs(numbers: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each run of equal numbers begins, and its number."""
    starts = np.flatnonzero(np.r_[True, np.diff(numbers) > 0])
    return starts, numbers[starts]
