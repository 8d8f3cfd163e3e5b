"""Whole-slide images by exact area weighting, in pieces."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.slide_files import tissue_like, write_pyramid_tiff
from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.shrink import AreaSum, area_resize
from wsi_pipeline.images.white import white
from wsi_pipeline.slides import thumbnail
from wsi_pipeline.slides.backends.array import ArraySlide
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide, SlideInfo, levels_of
from wsi_pipeline.slides.thumbnail import best_level, read_whole


def _weights(source: int, target: int) -> NDArray[np.float64]:
    """(target, source): how much of each input pixel lies in each output pixel, rows adding up to 1."""
    edges = np.arange(target + 1) * source / target
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(source)[None]
    overlap = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    return np.maximum(overlap, 0) * target / source


def _one_shot(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float64]:
    rows, columns = _weights(pixels.shape[0], height), _weights(pixels.shape[1], width)
    return np.einsum("ij,jkc,lk->ilc", rows, pixels.astype(np.float64), columns, optimize=True)


SIDES = st.integers(1, 70)


@settings(max_examples=80, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 9))
def test_area_resize_is_the_exact_area_mean(width: int, height: int, to_width: int, to_height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    found = area_resize(pixels, Size(to_width, to_height))
    assert np.abs(found - _one_shot(pixels, to_width, to_height)).max() <= 0.51


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 80), st.integers(10, 80), st.integers(1, 90), st.integers(1, 90), st.integers(3, 33))
def test_blocks_add_up_to_the_whole(width: int, height: int, to_width: int, to_height: int, step: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    total = AreaSum(Size(width, height), Size(to_width, to_height))
    for y in range(0, height, step):
        for x in range(0, width, step):
            part = pixels[y : y + step, x : x + step]
            total.add(part, Box(x, y, part.shape[1], part.shape[0]))
    assert np.abs(total.image() - _one_shot(pixels, to_width, to_height)).max() <= 0.51


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 30), st.floats(0.05, 2))
def test_size_is_the_rounded_scale_and_pixels_the_area_mean(target: float, mpp: float) -> None:
    rgb = tissue_like(173, 131)
    size = tuple(max(1, round(side * mpp / target)) for side in (173, 131))
    if size[0] * size[1] > 10**6:
        return
    found = read_whole(ArraySlide(rgb), mpp, target)
    assert found.shape == (size[1], size[0], 3)
    assert np.abs(found - _one_shot(rgb, *size)).max() <= 1


def test_band_edges_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    whole = read_whole(ArraySlide(rgb), 0.25, 3.1)
    monkeypatch.setattr(thumbnail, "BLOCK_HEIGHT", 64)
    monkeypatch.setattr(thumbnail, "BLOCK_PIXELS", 64 * 64)
    pieces = read_whole(ArraySlide(rgb), 0.25, 3.1)
    assert np.abs(whole.astype(int) - pieces).max() <= 1
    assert np.abs(pieces - _one_shot(rgb, whole.shape[1], whole.shape[0])).max() <= 1


def test_a_file_gives_the_same_picture_as_its_pixels(tmp_path: Path) -> None:
    rgb = tissue_like(700, 500)
    path = write_pyramid_tiff(tmp_path / "a.svs", rgb, mpp=0.5, compression="lzw", levels=(1,))
    with open_slide(path) as slide:
        assert np.abs(read_whole(slide, 0.5, 4.0).astype(int) - read_whole(ArraySlide(rgb), 0.5, 4.0)).max() == 0


@pytest.mark.parametrize(
    ("target", "level"), [(0.2, 0), (0.25, 0), (0.99, 0), (1.0, 1), (3.9, 1), (4.0, 2), (100.0, 2)]
)
def test_the_coarsest_level_still_as_fine_is_read(target: float, level: int) -> None:
    slide = _Recording(ArraySlide(tissue_like(640, 320), downsamples=(1, 4, 16)))
    read_whole(slide, 0.25, target)
    assert slide.levels == {level}


def test_levels_whose_size_was_rounded_down_still_count() -> None:
    assert best_level(levels_of([(17883, 16091), (4471, 4023), (1118, 1006)]), 4.0) == 1
    assert best_level(levels_of([(17883, 16091), (4470, 4022), (1117, 1005)]), 16.0) == 2


def test_too_large_a_result_is_refused() -> None:
    with pytest.raises(SlideError, match=r"400 x 400 pixels at 0\.5 mpp exceed the limit of 1000"):
        read_whole(ArraySlide(np.zeros((400, 400, 3), np.uint8)), 0.5, 0.5, max_pixels=1000)


class _Recording(Slide):
    """Passes reads on and keeps which levels were asked for."""

    def __init__(self, inner: Slide) -> None:
        self.inner, self.info, self.levels = inner, inner.info, set[int]()

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        self.levels.add(level)
        return self.inner.read_region(x, y, level, width, height)

    def close(self) -> None:
        self.inner.close()


class _Endless(Slide):
    """A blank single-level slide of any size with one dark square at (2000, 1000)."""

    def __init__(self, width: int, height: int) -> None:
        self.info = SlideInfo(levels_of([(width, height)]), 0.25, None, "made", "made")

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        image = white(width, height)
        image[max(0, 1000 - y) : max(0, 1500 - y), max(0, 2000 - x) : max(0, 2500 - x)] = 55
        return image

    def close(self) -> None:
        """Nothing to close."""


def test_memory_stays_bounded_on_a_huge_single_level() -> None:
    slide = _Endless(100_000, 20_000)
    tracemalloc.start()
    try:
        found = read_whole(slide, 0.25, 8.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.shape == (625, 3125, 3)
    assert peak < 400e6
    dark = 255 - found[..., 0].astype(float)
    assert dark.sum() == pytest.approx(200 * 500 * 500 / 32**2, rel=0.01)
