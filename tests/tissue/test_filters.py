"""Windows by shifted copies equal SciPy's general filters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage as ndi

from wsi_pipeline.tissue.detectors import filters as windows

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)
masks = hnp.arrays(np.bool_, shapes)
planes = hnp.arrays(np.float32, shapes, elements=st.floats(0, 3, width=32))
radii = st.integers(1, 6)


@given(planes, radii)
def test_mean_and_deviation(plane, radius):
    exact = plane.astype(float)
    mean = ndi.uniform_filter(exact, 2 * radius + 1, mode="nearest")
    square = ndi.uniform_filter(exact**2, 2 * radius + 1, mode="nearest")
    np.testing.assert_allclose(windows.local_mean(plane, radius), mean, atol=1e-5)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    np.testing.assert_allclose(windows.local_deviation(plane, radius), deviation, atol=3e-3)


@given(hnp.arrays(np.uint8, shapes), radii)
def test_range(plane, radius):
    size = 2 * radius + 1
    expected = ndi.maximum_filter(plane, size, mode="nearest") - ndi.minimum_filter(plane, size, mode="nearest")
    np.testing.assert_array_equal(windows.local_range(plane, radius), expected)


@given(masks, radii)
def test_dilation_and_erosion(mask, radius):
    size = 2 * radius + 1
    np.testing.assert_array_equal(windows.dilated(mask, radius), ndi.maximum_filter(mask, size, mode="nearest"))
    np.testing.assert_array_equal(windows.eroded(mask, radius), ndi.minimum_filter(mask, size, mode="nearest"))


@given(masks, radii)
def test_opening_takes_and_closing_adds_and_neither_twice(mask, radius):
    opened, closed = windows.opened(mask, radius), windows.closed(mask, radius)
    assert not (opened & ~mask).any()
    assert not (mask & ~closed).any()


@given(masks, st.integers(1, 9), st.sampled_from([0, 1]))
def test_runs_are_found_by_their_length(mask, length, axis):
    lines = np.pad(mask, 9, mode="edge") if axis == 1 else np.pad(mask, 9, mode="edge").T
    expected = np.zeros_like(lines)
    for row, line in enumerate(lines):
        labels, count = ndi.label(line)
        for index in range(1, count + 1):
            run = labels == index
            expected[row, run] = run.sum() >= length
    expected = (expected if axis == 1 else expected.T)[9:-9, 9:-9]
    np.testing.assert_array_equal(windows.in_runs(mask, length, axis), expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
@given(plane=planes)
def test_shrinking_averages_blocks(factor, plane):
    small = windows.shrunk(plane, factor)
    assert small.shape == tuple(-(-side // factor) for side in plane.shape)
    padded = np.pad(plane, [(0, -side % factor) for side in plane.shape], mode="edge")
    blocks = padded.reshape(small.shape[0], factor, small.shape[1], factor).mean(axis=(1, 3))
    np.testing.assert_allclose(small, blocks, atol=1e-5)
