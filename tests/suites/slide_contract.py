"""The tests every slide backend passes. Subclass it where a `case` fixture gives a SlideCase."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.slide import MAX_REGION_PIXELS, Slide

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class SlideCase:
    """A slide and what it holds.

    open        opens it anew
    level0      its level 0 as RGB on white (h, w, 3), from another decoder or from before writing
    tolerance   largest difference allowed, grey values
    levels      how many levels it has
    """

    open: Callable[[], Slide]
    level0: Pixels
    tolerance: int = 0
    levels: int = 1

    def expected(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Level-0 pixels at (x, y), white outside the slide."""
        image = np.full((height, width, 3), 255, np.uint8)
        rows, columns = np.arange(y, y + height), np.arange(x, x + width)
        inside_y = (rows >= 0) & (rows < self.level0.shape[0])
        inside_x = (columns >= 0) & (columns < self.level0.shape[1])
        image[np.ix_(inside_y, inside_x)] = self.level0[np.ix_(rows[inside_y], columns[inside_x])]
        return image

    def assert_equal(self, found: Pixels, expected: Pixels) -> None:
        """Fail where shape, dtype or any pixel (beyond the tolerance) differ."""
        assert found.dtype == np.uint8
        assert found.shape == expected.shape
        worst = int(np.abs(found.astype(int) - expected).max())
        assert worst <= self.tolerance, f"pixels differ by up to {worst}"


class SlideContract:
    """What `Slide` promises."""

    @pytest.fixture(scope="class")
    def slide(self, case: SlideCase) -> Slide:
        """The slide, opened once for the whole class."""
        with case.open() as slide:
            yield slide

    def test_info_describes_the_pyramid(self, case: SlideCase, slide: Slide) -> None:
        downsamples = [level.downsample for level in slide.info.levels]
        assert len(downsamples) == case.levels
        assert downsamples[0] == 1
        assert downsamples == sorted(set(downsamples))
        assert (slide.info.size.height, slide.info.size.width) == case.level0.shape[:2]

    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_any_region_of_level_0_holds_its_pixels_and_is_white_outside(
        self, case: SlideCase, slide: Slide, data: st.DataObject
    ) -> None:
        height, width = case.level0.shape[:2]
        x, y = data.draw(st.integers(-300, width + 100)), data.draw(st.integers(-300, height + 100))
        w, h = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 400))
        case.assert_equal(slide.read_region(x, y, 0, w, h), case.expected(x, y, w, h))

    @pytest.mark.parametrize("corner", [(-5000, 0), (0, -5000), (10**7, 0), (0, 10**7), (-(10**7), -(10**7))])
    def test_regions_beyond_the_slide_are_white_at_every_level(self, slide: Slide, corner: tuple[int, int]) -> None:
        for level in range(len(slide.info.levels)):
            assert (slide.read_region(*corner, level, 7, 5) == np.full((5, 7, 3), 255, np.uint8)).all()

    def test_one_large_read_equals_many_small_ones(self, slide: Slide) -> None:
        for number, level in enumerate(slide.info.levels):
            step = 64 if level.downsample == round(level.downsample) else max(level.size.width, level.size.height)
            whole = slide.read_region(0, 0, number, level.size.width, level.size.height)
            for y in range(0, level.size.height, step):
                for x in range(0, level.size.width, step):
                    corner = (round(x * level.downsample), round(y * level.downsample))
                    part = whole[y : y + step, x : x + step]
                    assert (slide.read_region(*corner, number, part.shape[1], part.shape[0]) == part).all()

    def test_levels_show_the_same_picture(self, case: SlideCase, slide: Slide) -> None:
        for number, level in enumerate(slide.info.levels):
            whole = slide.read_region(0, 0, number, level.size.width, level.size.height)
            assert np.abs(whole.mean((0, 1)) - case.level0.mean((0, 1))).max() < 3

    def test_threads_read_what_one_thread_reads(self, case: SlideCase) -> None:
        rng = np.random.default_rng(0)
        height, width = case.level0.shape[:2]
        corners = [(int(rng.integers(-50, width)), int(rng.integers(-50, height))) for _ in range(60)]
        with case.open() as slide, ThreadPoolExecutor(8) as pool:
            regions = list(pool.map(lambda corner: slide.read_region(*corner, 0, 90, 70), corners))
        for corner, region in zip(corners, regions, strict=True):
            case.assert_equal(region, case.expected(*corner, 90, 70))

    def test_what_is_read_belongs_to_the_reader(self, slide: Slide) -> None:
        first = slide.read_region(3, 5, 0, 40, 30)
        kept = first.copy()
        first[...] = 7
        assert (slide.read_region(3, 5, 0, 40, 30) == kept).all()

    @pytest.mark.parametrize("level", [-1, 99])
    def test_unknown_level_is_refused(self, slide: Slide, level: int) -> None:
        with pytest.raises(SlideError, match=f"level must be 0 to .*, got {level}"):
            slide.read_region(0, 0, level, 8, 8)

    @pytest.mark.parametrize("size", [(0, 8), (8, 0), (-1, 8), (MAX_REGION_PIXELS, 2)])
    def test_empty_and_oversized_regions_are_refused(self, slide: Slide, size: tuple[int, int]) -> None:
        with pytest.raises(SlideError, match="region must have between 1 and"):
            slide.read_region(0, 0, 0, *size)

    def test_a_closed_slide_refuses_to_read(self, case: SlideCase) -> None:
        slide = case.open()
        slide.read_region(0, 0, 0, 8, 8)
        slide.close()
        slide.close()
        with pytest.raises(SlideError, match="closed"):
            slide.read_region(0, 0, 0, 8, 8)
