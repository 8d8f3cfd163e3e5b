"""The covered part of each patch equals the polygon's own intersection with it, for any shape and any grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPoint, Polygon, box
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.geometry import Size
from wsi_pipeline.labelled.sources.cover import covered_cells


def one_by_one(area: BaseGeometry, size: Size, patch: int, stride: int) -> dict[tuple[int, int], float]:
    cells = {}
    for row, y in enumerate(range(0, size.height, stride)):
        for column, x in enumerate(range(0, size.width, stride)):
            part = area.intersection(box(x, y, x + patch, y + patch)).area / patch**2
            if part > 0:
                cells[column, row] = part
    return cells


points = st.tuples(st.floats(0, 300, width=32), st.floats(0, 200, width=32))


@settings(max_examples=40, deadline=None)
@given(st.lists(points, min_size=3, max_size=12), st.integers(12, 60), st.data())
def test_equals_the_intersection_patch_by_patch(
    corners: list[tuple[float, float]], patch: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(max(3, patch // 3), patch + 10))
    size = Size(300, 200)
    holed = MultiPoint(corners).convex_hull.buffer(3).difference(MultiPoint(corners[:2]).buffer(2))
    area = holed.intersection(box(0, 0, 300, 200))
    found, expected = covered_cells(area, size, patch, stride), one_by_one(area, size, patch, stride)
    assert {cell for cell, part in expected.items() if part > 1e-6} <= found.keys()
    for cell, part in found.items():
        assert part == pytest.approx(expected.get(cell, 0), abs=1e-6)


def test_nothing_covers_nothing() -> None:
    assert covered_cells(Polygon(), Size(100, 100), 10, 10) == {}
    assert covered_cells(box(100, 0, 100, 50), Size(100, 100), 10, 10) == {}


def test_the_whole_slide_covers_all_but_what_lies_past_it() -> None:
    found = covered_cells(box(0, 0, 95, 100), Size(95, 100), 10, 10)
    assert len(found) == 100
    assert {cell for cell, part in found.items() if part < 1} == {(9, row) for row in range(10)}
    assert found[9, 3] == pytest.approx(0.5)


def test_an_outline_of_many_points_is_exact() -> None:
    angle = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    radius = 4000 * (1 + 0.05 * np.sin(300 * angle) + 0.2 * np.sin(5 * angle))
    area = Polygon(np.stack([6000 + radius * np.cos(angle), 6000 + radius * np.sin(angle)], axis=1))
    found = covered_cells(area, Size(12_000, 12_000), 256, 256)
    assert sum(found.values()) * 256**2 == pytest.approx(area.area, rel=1e-9)
