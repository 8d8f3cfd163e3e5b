"""Geometry, grid and coverage as properties: exact resolution, exact areas, coordinates that stay put."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.slide import Level, SlideInfo
from wsi_pipeline.tiling.coverage import box_coverage
from wsi_pipeline.tiling.grid import lay_grid
from wsi_pipeline.tiling.resolve import resolve_geometry
from wsi_pipeline.tissue.mask import TissueMask


def slide_info(*downsamples: float, side: int = 100_000) -> SlideInfo:
    levels = tuple(Level(Size(int(side / d), int(side / d)), d) for d in downsamples)
    return SlideInfo(levels, None, None, "test", "array")


@pytest.mark.parametrize(
    ("mpp", "downsamples", "spec", "expected"),
    [
        # (level, level_px, patch_level0, resampled)
        (0.2528, (1, 3.9992, 15.991), TileSpec(), (0, 512, 512, False)),
        (0.2630, (1, 4, 16), TileSpec(), (0, 487, 487, True)),  # 0.526 is 5 % off
        (0.2524, (1, 4), TileSpec(mpp_tolerance=0.0), (0, 507, 507, True)),
        (0.25, (1, 4), TileSpec(mpp_tolerance=0.0), (0, 512, 512, False)),
        (0.25, (1, 4), TileSpec(mpp=1.0), (1, 256, 1024, False)),
        (0.25, (1, 2, 4), TileSpec(mpp=0.5), (1, 256, 512, False)),
        (0.499, (1,), TileSpec(), (0, 256, 256, False)),
        (0.51, (1,), TileSpec(), (0, 256, 256, False)),  # 2 % coarser: within tolerance, not enlarged
        (1.0, (1,), TileSpec(allow_upsample=True), (0, 128, 128, True)),
        (0.25, (1, 4), TileSpec(mpp=2.0, patch_px=512), (1, 1024, 4096, False)),
    ],
)
def test_known_cases(mpp: float, downsamples: tuple[float, ...], spec: TileSpec, expected: tuple[object, ...]) -> None:
    found = resolve_geometry(spec, slide_info(*downsamples), mpp)
    assert (found.level, found.level_px, found.patch_level0, found.resampled) == expected


def test_a_slide_coarser_than_asked_is_refused_with_what_to_do() -> None:
    with pytest.raises(SlideError, match="--allow-upsample"):
        resolve_geometry(TileSpec(mpp=0.5), slide_info(1), 1.0)


@given(
    mpp=st.floats(0.1, 2.0),
    target=st.floats(0.1, 4.0),
    patch=st.integers(64, 1024),
    tolerance=st.sampled_from([0.0, 0.03, 0.1]),
    extra=st.lists(st.floats(1.5, 40), max_size=3),
)
def test_the_delivered_mpp_is_the_one_asked_for(
    mpp: float, target: float, patch: int, tolerance: float, extra: list[float]
) -> None:
    assume(mpp <= target)
    downsamples = sorted({1.0, *extra})
    found = resolve_geometry(
        TileSpec(patch_px=patch, mpp=target, mpp_tolerance=tolerance), slide_info(*downsamples), mpp
    )
    rounding = 0.5 * mpp / patch  # a patch is a whole number of level-0 pixels
    assert abs(found.mpp - target) <= tolerance * target + rounding + 1e-9
    assert found.mpp == pytest.approx(found.patch_level0 * mpp / patch)
    level_mpp = mpp * downsamples[found.level]
    assert level_mpp <= target * (1 + tolerance) * (1 + 1e-6)  # never enlarged beyond the tolerance
    coarser = [d for d in downsamples if downsamples[found.level] < d and mpp * d <= target * (1 - 1e-6)]
    assert not coarser  # the coarsest level that is fine enough
    if not found.resampled:
        assert found.level_px % patch == 0


def naive_coverage(mask: TissueMask, x: float, y: float, side: float) -> float:
    """Sum of overlap areas of every tissue pixel with the box: the definition, slowly."""
    area = 0.0
    for i, j in zip(*np.nonzero(mask.pixels), strict=True):
        left, top = j * mask.scale_x, i * mask.scale_y
        width = min(x + side, left + mask.scale_x) - max(x, left)
        height = min(y + side, top + mask.scale_y) - max(y, top)
        area += max(width, 0.0) * max(height, 0.0)
    return area / side**2


masks = st.builds(
    lambda h, w, seed, width, height, p: TissueMask(
        np.random.default_rng(seed).random((h, w)) < p, Size(width, height), 0.5
    ),
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 300),
    st.floats(0, 1),
)  # fmt: skip


@settings(deadline=None)
@given(mask=masks, side=st.integers(1, 90), stride=st.integers(7, 90))
def test_coverage_equals_the_definition(mask: TissueMask, side: int, stride: int) -> None:
    xs = np.arange(0, mask.slide_size.width, stride)
    ys = np.arange(0, mask.slide_size.height, stride)
    found = box_coverage(mask, xs, ys, side)
    assert found.shape == (len(ys), len(xs))
    for i, y in enumerate(ys[:4]):
        for j, x in enumerate(xs[:4]):
            assert found[i, j] == pytest.approx(naive_coverage(mask, x, y, side), abs=1e-9)


@settings(deadline=None)
@given(mask=masks, side=st.integers(2, 90), overlap=st.floats(0, 0.9), least=st.floats(0, 1))
def test_grid_properties(mask: TissueMask, side: int, overlap: float, least: float) -> None:
    stride = max(1, round(side * (1 - overlap)))
    grid = lay_grid(mask, side, stride, least)
    assert grid.coords.dtype == np.int64
    assert (grid.coords % stride == 0).all()  # anchored at (0, 0)
    assert (grid.coords >= 0).all()
    assert (grid.coords < [mask.slide_size.width, mask.slide_size.height]).all()
    assert len(np.unique(grid.coords, axis=0)) == len(grid)
    assert ((grid.coverage > 0) & (grid.coverage >= least - 1e-6) & (grid.coverage <= 1)).all()
    order = np.lexsort((grid.coords[:, 0], grid.coords[:, 1]))
    assert (order == np.arange(len(grid))).all()  # row by row


@settings(deadline=None)
@given(mask=masks, side=st.integers(2, 60))
def test_no_candidate_with_enough_tissue_is_missed(mask: TissueMask, side: int) -> None:
    grid = {tuple(xy) for xy in lay_grid(mask, side, side, 0.5).coords.tolist()}
    for x in range(0, mask.slide_size.width, side):
        for y in range(0, mask.slide_size.height, side):
            true = naive_coverage(mask, x, y, side)
            if abs(true - 0.5) > 1e-6:
                assert ((x, y) in grid) == (true > 0.5)


@settings(deadline=None)
@given(mask=masks, side=st.integers(2, 60))
def test_coordinates_do_not_move_when_the_mask_does(mask: TissueMask, side: int) -> None:
    everywhere = dataclasses.replace(mask, pixels=np.ones_like(mask.pixels))
    some = {tuple(xy) for xy in lay_grid(mask, side, side, 0.1).coords.tolist()}
    assert some <= {tuple(xy) for xy in lay_grid(everywhere, side, side, 0.0).coords.tolist()}


def test_no_tissue_is_no_patch_even_where_none_is_asked_for() -> None:
    mask = TissueMask(np.zeros((4, 4), bool), Size(400, 400), 0.5)
    assert len(lay_grid(mask, 100, 100, 0.0)) == 0
