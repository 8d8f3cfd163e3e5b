"""Classes of patches as areas: exact to the pixel of a patch corner, whole, without overlap, the same everywhere."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import box

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps.class_areas import (
    BARE,
    PALETTE,
    UNCLEAR,
    ClassAreas,
    class_areas,
    class_colours,
    class_geojson,
    class_polygons,
    patch_labels,
)
from wsi_pipeline.report.maps.class_overlay import OPACITY, class_cover, draw_classes, percent
from wsi_pipeline.tissue.geojson import from_geojson

CLASSES = ("a", "b", "c")
Laid = tuple[NDArray[np.int64], int, NDArray[np.float32], Size]


@st.composite
def laid(draw: st.DrawFn, overlap: bool = True) -> Laid:
    """Some patches of a grid with probabilities, on a slide that may end within the last of them."""
    stride = draw(st.integers(1, 40))
    patch = draw(st.integers(stride, 3 * stride)) if overlap else stride
    across, down = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    grid = np.array([(x * stride, y * stride) for y in range(down) for x in range(across)], np.int64)
    kept = np.array(draw(st.lists(st.booleans(), min_size=len(grid), max_size=len(grid))))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    chances = rng.dirichlet([0.6] * len(CLASSES), int(kept.sum())).astype(np.float32)
    size = Size((across - 1) * stride + draw(st.integers(1, 2 * patch)), (down - 1) * stride + draw(st.integers(1, 90)))
    return grid[kept], patch, chances, size


def label_image(areas: ClassAreas, size: Size) -> NDArray[np.int64]:
    """The areas as an image of the whole slide, pixel by pixel."""
    image = np.full((size.height, size.width), BARE)
    for (top, bottom), row in zip(itertools.pairwise(areas.ys), areas.labels, strict=True):
        for (left, right), label in zip(itertools.pairwise(areas.xs), row, strict=True):
            image[top:bottom, left:right] = label
    return image


def expected_image(
    coords: NDArray[np.int64], patch: int, chances: NDArray[np.float32], size: Size, least: float
) -> NDArray[np.int64]:
    """The same by painting every pixel of every patch."""
    total, layers = np.zeros((size.height, size.width, chances.shape[1])), np.zeros((size.height, size.width))
    for (x, y), values in zip(coords, chances, strict=True):
        total[y : y + patch, x : x + patch] += values
        layers[y : y + patch, x : x + patch] += 1
    mean = total / np.maximum(layers, 1)[..., None]
    labels = np.where(mean.max(axis=2) >= least, mean.argmax(axis=2), UNCLEAR)
    return np.where(layers > 0, labels, BARE)


@settings(max_examples=60, deadline=None)
@given(laid(), st.sampled_from([0.0, 0.5, 0.8]))
def test_each_pixel_has_the_class_of_highest_mean_probability(case: Laid, least: float) -> None:
    coords, patch, chances, size = case
    areas = class_areas(coords, patch, chances, size, least)
    np.testing.assert_array_equal(label_image(areas, size), expected_image(coords, patch, chances, size, least))


@settings(max_examples=60, deadline=None)
@given(laid())
def test_polygons_are_whole_and_cover_the_patches_without_overlap(case: Laid) -> None:
    coords, patch, chances, size = case
    areas = class_areas(coords, patch, chances, size)
    image = label_image(areas, size)
    polygons = [class_polygons(areas, number) for number in range(len(CLASSES))]
    for number, of_class in enumerate(polygons):
        assert all(polygon.is_valid for polygon in of_class)
        assert sum(polygon.area for polygon in of_class) == (image == number).sum()
        # Joined where they share an edge: two of them meet in points at most.
        assert all(one.intersection(other).length == 0 for one, other in itertools.combinations(of_class, 2))
        for polygon in of_class:
            corners = np.concatenate([np.asarray(ring.coords) for ring in (polygon.exterior, *polygon.interiors)])
            assert set(corners[:, 0]) <= {float(x) for x in areas.xs}
            assert set(corners[:, 1]) <= {float(y) for y in areas.ys}
    every = shapely.union_all([polygon for of_class in polygons for polygon in of_class])
    squares = shapely.union_all([box(x, y, x + patch, y + patch) for x, y in coords])
    assert every.symmetric_difference(squares.intersection(box(0, 0, size.width, size.height))).area == 0


@settings(max_examples=40, deadline=None)
@given(laid(overlap=False))
def test_without_overlap_an_area_is_a_patch_and_has_its_class(case: Laid) -> None:
    coords, patch, chances, size = case
    image = label_image(class_areas(coords, patch, chances, size, 0.5), size)
    labels = patch_labels(chances, 0.5)
    for (x, y), label in zip(coords, labels, strict=True):
        assert set(np.unique(image[y : y + patch, x : x + patch])) <= {label}


@settings(max_examples=40, deadline=None)
@given(laid(), st.integers(1, 50), st.integers(1, 50))
def test_pixels_of_the_picture_are_covered_by_exact_area(case: Laid, width: int, height: int) -> None:
    coords, patch, chances, size = case
    areas = class_areas(coords, patch, chances, size)
    image = label_image(areas, size)
    for number in (*range(len(CLASSES)), UNCLEAR):
        cover = class_cover(areas, number, (height, width), size)
        assert cover.min() >= 0
        assert cover.max() <= 1
        assert cover.sum() * size.pixels / (width * height) == pytest.approx(
            (image == number).sum(), abs=1e-6 * size.pixels
        )
    whole = class_cover(areas, 0, (size.height, size.width), size)
    np.testing.assert_allclose(whole, image == 0, atol=1e-9)


def test_a_ring_of_patches_has_a_hole_and_no_needless_points() -> None:
    ring = [(x, y) for y in range(3) for x in range(3) if (x, y) != (1, 1)]
    coords = np.array(ring, np.int64) * 10
    areas = class_areas(coords, 10, np.ones((8, 1), np.float32), Size(100, 100))
    (polygon,) = class_polygons(areas, 0)
    assert list(polygon.exterior.coords)[:-1] == [(0, 0), (0, 30), (30, 30), (30, 0)]
    assert [len(hole.coords) for hole in polygon.interiors] == [5]
    assert polygon.area == 800


def test_patches_that_meet_in_a_corner_are_two_areas() -> None:
    areas = class_areas(np.array([[0, 0], [10, 10]]), 10, np.ones((2, 1), np.float32), Size(50, 50))
    assert [polygon.area for polygon in class_polygons(areas, 0)] == [100, 100]


def test_equals_go_to_the_first_class_everywhere() -> None:
    chances = np.full((3, 2), 0.5, np.float32)
    coords = np.array([[0, 0], [5, 0], [10, 0]])
    assert patch_labels(chances).tolist() == [0, 0, 0]
    assert set(class_areas(coords, 10, chances, Size(40, 10)).labels.ravel()) == {0}


def test_a_probability_at_the_threshold_counts_although_it_is_kept_as_float32() -> None:
    chances = np.array([[0.7, 0.3]], np.float32)
    assert patch_labels(chances, 0.7).tolist() == [0]
    assert class_areas(np.array([[0, 0]]), 4, chances, Size(4, 4), 0.7).labels.tolist() == [[0]]
    assert patch_labels(chances, 0.71).tolist() == [UNCLEAR]


def test_geojson_is_as_qupath_reads_it() -> None:
    coords = np.array([[0, 0], [10, 0], [20, 0]])
    chances = np.eye(3, dtype=np.float32)[[0, 0, 2]]
    areas = class_areas(coords, 10, chances, Size(30, 10))
    document = class_geojson(areas, ("gland & duct", "unused", "tumour"), 0.5)
    assert json.loads(json.dumps(document)) == document
    first, second = document["features"]
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"] == {"name": "gland & duct", "color": list(class_colours(1)[0])}
    assert first["properties"]["area_um2"] == 200 * 0.25
    assert second["properties"]["classification"]["name"] == "tumour"
    assert [polygon.area for polygon in from_geojson(document)] == [200, 100]
    assert (
        class_geojson(areas, CLASSES, 0.5)["features"][0]["id"]
        == class_geojson(areas, CLASSES, 0.5)["features"][0]["id"]
    )


def test_pixels_of_the_overlay_change_exactly_where_patches_lie() -> None:
    thumbnail = np.random.default_rng(0).integers(0, 255, (120, 400, 3), np.uint8)
    size, coords = Size(800, 240), np.array([[0, 0], [200, 40], [760, 200]])
    chances = np.eye(3, dtype=np.float32)
    areas = class_areas(coords, 40, chances, size)
    picture = np.asarray(draw_classes(thumbnail, size, areas, CLASSES, [1 / 3] * 3))[:120, :400]
    painted = np.zeros((120, 400), bool)
    for (x, y), colour in zip(coords // 2, class_colours(3), strict=True):
        grey = thumbnail[y : y + 20, x : x + 20] @ np.array([0.299, 0.587, 0.114])
        wanted = (1 - OPACITY) * grey[..., None] + OPACITY * np.array(colour)
        np.testing.assert_allclose(picture[y : y + 20, x : x + 20], wanted, atol=0.51)
        painted[y : y + 20, x : x + 20] = True
    np.testing.assert_array_equal(picture[~painted], thumbnail[~painted])


def test_a_slide_without_patches_keeps_its_thumbnail() -> None:
    thumbnail = np.full((50, 60, 3), 200, np.uint8)
    areas = class_areas(np.zeros((0, 2), np.int64), 10, np.zeros((0, 3), np.float32), Size(600, 500))
    assert class_polygons(areas, 0) == []
    assert class_geojson(areas, CLASSES, 0.5)["features"] == []
    picture = np.asarray(draw_classes(thumbnail, Size(600, 500), areas, CLASSES, [0.0] * 3))
    np.testing.assert_array_equal(picture[:50, :60], thumbnail)
    assert (picture[50:] < 128).any()


def test_patches_wholly_beyond_the_slide_leave_no_area() -> None:
    areas = class_areas(np.array([[100, 0]]), 10, np.ones((1, 1), np.float32), Size(50, 50))
    assert class_polygons(areas, 0) == []


def test_the_legend_takes_as_many_lines_as_it_needs_and_stays_in_the_picture() -> None:
    thumbnail, size = np.full((200, 500, 3), 230, np.uint8), Size(500, 200)
    heights = []
    for count in (2, 12, 40):
        chances = np.eye(count, dtype=np.float32)
        coords = np.array([[i * 10, 0] for i in range(count)])
        names = [f"class number {i}" for i in range(count)]
        picture = draw_classes(thumbnail, size, class_areas(coords, 10, chances, size), names, [1 / count] * count)
        assert picture.width == 500
        assert (np.asarray(picture)[200:, -3:] == 255).all()
        heights.append(picture.height)
    assert heights == sorted(set(heights))
    drawn = draw_classes(thumbnail, size, class_areas(coords, 10, chances, size), names, [1 / 40] * 40, unclear=0.5)
    assert drawn.height >= heights[-1]


def test_colours_are_those_of_the_palette_then_others() -> None:
    assert len({*class_colours(21)}) == 21
    assert class_colours(22)[21] == class_colours(1)[0]
    assert class_colours(1)[0] == tuple(bytes.fromhex(PALETTE[0][1:]))


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(WsiPipelineError, match="do not match"):
        class_areas(np.zeros((2, 2), np.int64), 10, np.zeros((3, 2), np.float32), Size(10, 10))


@pytest.mark.parametrize(
    ("part", "words"), [(0, "0 %"), (0.0004, "< 0.1 %"), (0.004, "0.4 %"), (0.62, "62 %"), (1, "100 %")]
)
def test_parts_in_words(part: float, words: str) -> None:
    assert percent(part) == words
