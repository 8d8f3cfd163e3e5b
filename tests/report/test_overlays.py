"""The overlay shows outlines and patches where they are, fast, and leaves the rest of the picture alone."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from tests.work import calls
from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps.overlays import OUTLINE, draw_overlay

PAPER = np.full((300, 400, 3), 240, dtype=np.uint8)
SLIDE = Size(40_000, 30_000)


def changed(image: object, thumbnail: np.ndarray = PAPER) -> np.ndarray:
    return (np.asarray(image) != thumbnail).any(axis=2)


def test_nothing_to_draw_leaves_the_thumbnail_as_it_is():
    for coords in (None, np.zeros((0, 2), dtype=np.int64)):
        assert not changed(draw_overlay(PAPER, SLIDE, [], coords, 1000)).any()


def test_patches_tint_their_own_area_and_nothing_else():
    coords = np.array([[10_000, 5_000], [11_000, 5_000], [39_500, 29_500]], dtype=np.int64)
    touched = changed(draw_overlay(PAPER, SLIDE, [], coords, 1000))
    expected = np.zeros((300, 400), dtype=bool)
    expected[50:61, 100:121] = True
    expected[295:, 395:] = True
    assert touched[expected].all()
    expected[50:62, 100:122] = True
    assert not touched[~expected].any()


def test_borders_are_darker_than_the_tint_where_there_is_room_and_vanish_where_there_is_none():
    def levels(patch: int) -> np.ndarray:
        steps = np.arange(0, 8_000, patch)
        coords = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        return np.unique(np.asarray(draw_overlay(PAPER, SLIDE, [], coords, patch))[:80, :80, 0])

    assert len(levels(2000)) >= 3
    assert len(levels(200)) == 1, "patches two pixels wide become an even tint"


def test_outlines_and_holes_are_drawn_on_their_place():
    polygon = Polygon(box(10_000, 5_000, 30_000, 25_000).exterior, [box(18_000, 12_000, 22_000, 18_000).exterior])
    image = np.asarray(draw_overlay(PAPER, SLIDE, [polygon], None, 256)).astype(int)
    for x, y in ((100, 150), (300, 150), (200, 50), (200, 250), (180, 150), (200, 180)):
        near = image[y - 2 : y + 3, x - 2 : x + 3]
        assert np.abs(near - OUTLINE).sum(axis=2).min() < 60, (x, y)
    assert (image[150, 140] == 240).all()
    assert (image[150, 200] == 240).all()


def test_large_thumbnails_shrink_and_small_ones_stay():
    assert draw_overlay(np.zeros((900, 3000, 3), np.uint8), Size(30_000, 9_000), [], None, 256).size == (1600, 480)
    assert draw_overlay(PAPER, SLIDE, [], None, 256, max_px=200).size == (200, 150)
    assert draw_overlay(PAPER, SLIDE, [], None, 256).size == (400, 300)


@pytest.mark.parametrize(("mpp", "length_um"), [(0.25, 2000), (0.5, 2000), (0.2, 1000)])
def test_the_scale_bar_is_as_long_as_it_says(mpp, length_um):
    white = np.full((1200, 1600, 3), 255, dtype=np.uint8)
    image = np.asarray(draw_overlay(white, SLIDE, [], None, 256, mpp=mpp))
    rows = (image[900:] == 25).all(axis=2)
    longest = rows.sum(axis=1).max() - 1
    assert longest * mpp * SLIDE.width / 1600 == pytest.approx(length_um, rel=0.02)


def test_the_thumbnail_is_not_written_to():
    before = PAPER.copy()
    draw_overlay(PAPER, SLIDE, [box(0, 0, 9_000, 9_000)], np.array([[0, 0]]), 5000, mpp=0.5)
    np.testing.assert_array_equal(PAPER, before)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (16, 16), (2000, 10)])
def test_odd_thumbnails_are_drawn_on(shape):
    thumbnail = np.full((*shape, 3), 200, dtype=np.uint8)
    size = Size(shape[1] * 16, shape[0] * 16)
    image = draw_overlay(thumbnail, size, [box(0, 0, 12, 12)], np.array([[0, 0], [500, 500]]), 256, mpp=0.5)
    assert max(image.size) <= 1600


def test_a_hundred_thousand_patches_are_drawn_at_once():
    coords = np.stack(np.meshgrid(np.arange(400), np.arange(250)), axis=-1).reshape(-1, 2) * 256
    thumbnail = np.full((1000, 1600, 3), 230, dtype=np.uint8)
    drawn = []

    def draw(number):
        drawn.append(np.asarray(draw_overlay(thumbnail, Size(102_400, 64_000), [], coords[:number], 256)))

    assert calls(draw, 1) > 0.5 * calls(draw, len(coords))
    assert (drawn[1][..., 0] < 230).all()
