"""Clean-up keeps its promises on any mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.tissue.cleanup import clean_mask

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))
limits = st.floats(0, 400)
areas = st.floats(0.25, 64)


def hole_sizes(mask: np.ndarray) -> np.ndarray:
    labels, count = ndi.label(~mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    open_ones = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1], [0]]))
    return np.delete(sizes, open_ones)


def fragment_sizes(mask: np.ndarray) -> np.ndarray:
    labels, count = ndi.label(mask, structure=np.ones((3, 3)))
    return np.bincount(labels.ravel(), minlength=count + 1)[1:]


@given(masks, areas, limits, limits)
def test_nothing_under_the_limits_remains_and_cleaning_twice_changes_nothing(mask, pixel_um2, tissue, hole):
    clean = clean_mask(mask, pixel_um2, tissue, hole)
    assert clean.shape == mask.shape
    assert clean.dtype == np.bool_
    assert (fragment_sizes(clean) * pixel_um2 >= tissue * (1 - 1e-9)).all()
    assert (hole_sizes(clean) * pixel_um2 >= hole * (1 - 1e-9)).all()
    np.testing.assert_array_equal(clean_mask(clean, pixel_um2, tissue, hole), clean)


@given(masks, areas, limits, limits)
def test_whole_fragments_and_whole_holes_change_and_nothing_else(mask, pixel_um2, tissue, hole):
    filled = clean_mask(mask, pixel_um2, 0, hole)
    clean = clean_mask(mask, pixel_um2, tissue, hole)
    assert (filled | ~mask).all(), "filling takes nothing away"
    assert (filled | ~clean).all(), "dropping fragments adds nothing"
    labels, count = ndi.label(filled, structure=np.ones((3, 3)))
    for index in range(1, count + 1):
        assert clean[labels == index].all() or not clean[labels == index].any()


@given(masks, areas)
def test_zero_limits_change_nothing(mask, pixel_um2):
    np.testing.assert_array_equal(clean_mask(mask, pixel_um2, 0, 0), mask)


def test_limits_are_areas_not_pixels():
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:5, 2:5] = True  # 9 pixels
    assert clean_mask(mask, 100.0, 900.0, 0).sum() == 9
    assert clean_mask(mask, 100.0, 901.0, 0).sum() == 0
    assert clean_mask(mask, 400.0, 901.0, 0).sum() == 9


def test_a_gap_open_to_the_edge_is_no_hole():
    mask = np.ones((9, 9), dtype=bool)
    mask[0:3, 4] = False
    mask[5, 5] = False
    clean = clean_mask(mask, 1.0, 0, 100.0)
    assert not clean[0:3, 4].any()
    assert clean[5, 5]


def test_corner_contact_joins_tissue():
    mask = np.eye(6, dtype=bool)
    assert clean_mask(mask, 1.0, 6.0, 0).sum() == 6


@pytest.mark.parametrize(("pixel", "tissue", "hole", "field"), [
    (0.0, 1.0, 1.0, "pixel_um2"), (1.0, -1.0, 1.0, "min_tissue_um2"), (1.0, 1.0, -1.0, "max_hole_um2"),
    (float("nan"), 1.0, 1.0, "pixel_um2"),
])  # fmt: skip
def test_impossible_limits_are_refused(pixel, tissue, hole, field):
    with pytest.raises(WsiPipelineError, match=field):
        clean_mask(np.ones((2, 2), dtype=bool), pixel, tissue, hole)
