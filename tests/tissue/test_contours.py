"""Outlines enclose what the mask encloses."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi

from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.contours import tissue_polygons
from wsi_pipeline.tissue.mask import TissueMask

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20))


def mask_of(pixels: np.ndarray, scale: int = 16, mpp: float = 0.5) -> TissueMask:
    height, width = pixels.shape
    return TissueMask(pixels, Size(width * scale, height * scale), mpp)


def blobs(seed: int, shape: tuple[int, int] = (160, 220)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndi.gaussian_filter(noise, 5) > 0.02


@settings(deadline=None)
@given(masks, st.sampled_from([0.0, 4.0, 40.0]))
def test_one_valid_polygon_per_fragment_whatever_the_mask(pixels, simplify_um):
    mask = mask_of(pixels)
    polygons = tissue_polygons(mask, simplify_um)
    assert len(polygons) == ndi.label(pixels, structure=np.ones((3, 3)))[1]
    assert all(polygon.is_valid and polygon.area > 0 for polygon in polygons)
    frame = shapely.box(0, 0, mask.slide_size.width, mask.slide_size.height)
    assert all(frame.covers(polygon) for polygon in polygons)


@settings(deadline=None)
@given(masks)
def test_without_simplifying_the_outline_separates_tissue_from_the_rest(pixels):
    union = shapely.union_all(tissue_polygons(mask_of(pixels, scale=10), 0.0))
    rows, columns = np.indices(pixels.shape)
    inside = shapely.contains_xy(union, columns * 10 + 5.0, rows * 10 + 5.0)
    np.testing.assert_array_equal(inside, pixels)


@pytest.mark.parametrize("seed", range(5))
def test_area_within_one_percent_and_outline_within_the_tolerance(seed):
    pixels = blobs(seed)
    mask = mask_of(pixels)
    labels, _ = ndi.label(pixels, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:] * mask.scale_x * mask.scale_y
    polygons = tissue_polygons(mask, 4.0)
    big = sorted((size for size in sizes if size > 100 * mask.scale_x**2), reverse=True)
    areas = sorted((polygon.area for polygon in polygons), reverse=True)[: len(big)]
    np.testing.assert_allclose(areas, big, rtol=0.01)
    for exact, simple in zip(tissue_polygons(mask, 0.0)[: len(big)], polygons, strict=False):
        assert exact.hausdorff_distance(simple) * mask.mpp <= 4.0 + 1e-6
        assert shapely.get_num_coordinates(simple) < 0.6 * shapely.get_num_coordinates(exact)


def test_holes_and_the_island_in_a_hole_are_kept():
    pixels = np.zeros((40, 40), dtype=bool)
    pixels[4:36, 4:36] = True
    pixels[10:30, 10:30] = False
    pixels[16:24, 16:24] = True
    outer, island = tissue_polygons(mask_of(pixels))
    assert len(outer.interiors) == 1
    assert not island.interiors
    assert shapely.Polygon(outer.interiors[0]).contains(island)
    assert outer.area == pytest.approx((32 * 32 - 20 * 20) * 256, rel=0.01)


def test_full_and_empty_masks():
    full = tissue_polygons(mask_of(np.ones((30, 20), dtype=bool)))
    assert len(full) == 1
    assert full[0].bounds == (0, 0, 320, 480)
    assert full[0].area == pytest.approx(320 * 480, rel=0.01)
    assert tissue_polygons(mask_of(np.zeros((30, 20), dtype=bool))) == []


def test_scale_that_is_no_whole_number_is_kept():
    pixels = np.zeros((10, 12), dtype=bool)
    pixels[2:7, 3:9] = True
    mask = TissueMask(pixels, Size(1001, 777), 0.25)
    (polygon,) = tissue_polygons(mask, 0.0)
    expected = (3 * 1001 / 12, 2 * 77.7, 9 * 1001 / 12, 7 * 77.7)
    np.testing.assert_allclose(polygon.bounds, expected)
