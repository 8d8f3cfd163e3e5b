"""Outlines, sheet and pyramid of a heatmap: in place to the pixel, bounded, readable by the tools they are for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
from shapely.geometry import shape

from wsi_pipeline.geometry import Size
from wsi_pipeline.report.maps import heat
from wsi_pipeline.report.maps.example_sheets import draw_attention_sheet, strongest_and_weakest
from wsi_pipeline.report.maps.heat import BANDS, attention_geojson
from wsi_pipeline.report.maps.heat_tiff import write_pyramid
from wsi_pipeline.slides.open import open_slide

SIZE = Size(10_000, 8000)
STRONG, NEXT = (name for _, name, _ in BANDS)


def grid(step: int = 500, columns: int = 20, rows: int = 10) -> np.ndarray:
    return np.array([(x * step, y * step) for y in range(rows) for x in range(columns)], np.int64)


def test_outlines_lie_on_the_patch_corners() -> None:
    coords = grid()
    values = np.full(200, 1e-4)
    hot = (coords[:, 0] >= 2000) & (coords[:, 0] < 4500) & (coords[:, 1] >= 1000) & (coords[:, 1] < 2000)
    values[hot] = 1.0
    made = attention_geojson(coords, 500, values / values.sum(), SIZE, 0.5)
    (feature,) = [f for f in made["features"] if f["properties"]["classification"]["name"] == STRONG]
    assert shape(feature["geometry"]).bounds == (2000, 1000, 4500, 2000)
    assert shape(feature["geometry"]).area == 2500 * 1000
    measured = feature["properties"]["measurements"]
    assert measured["Patches"] == 10
    assert measured["Attention (even share = 1)"] == pytest.approx(200 / 10.019, rel=1e-3)
    assert measured["Area µm^2"] == 2500 * 1000 * 0.25


def test_bands_hold_the_strongest_twentieth_and_fifth() -> None:
    values = np.random.default_rng(0).permutation(200).astype(float) + 1
    made = attention_geojson(grid(), 500, values / values.sum(), SIZE, 0.5)
    area = dict.fromkeys((STRONG, NEXT), 0.0)
    for feature in made["features"]:
        area[feature["properties"]["classification"]["name"]] += shape(feature["geometry"]).area / 500**2
    assert area == {STRONG: 10, NEXT: 30}
    strength = [f["properties"]["measurements"]["Attention (even share = 1)"] for f in made["features"]]
    first = sum(f["properties"]["classification"]["name"] == STRONG for f in made["features"])
    assert strength[:first] == sorted(strength[:first], reverse=True)


def test_overlaps_count_by_their_mean() -> None:
    coords = np.array([[0, 0], [500, 0], *((x, 4000) for x in range(0, 9000, 500))], np.int64)
    values = np.linspace(1, 2, len(coords))
    values[0], values[1] = 10.0, 9.0
    made = attention_geojson(coords, 1000, values / values.sum(), SIZE, 0.5)
    (top,) = [f for f in made["features"] if f["properties"]["classification"]["name"] == STRONG]
    # Percentiles 97.5 and 92.5: alone, and in the overlap of both at 95.
    assert shape(top["geometry"]).bounds == (0, 0, 1000, 1000)


def test_even_attention_marks_nothing_and_no_patches_neither() -> None:
    assert attention_geojson(grid(), 500, np.full(200, 1 / 200), SIZE, 0.5)["features"] == []
    assert attention_geojson(np.zeros((0, 2), np.int64), 500, np.zeros(0), SIZE, 0.5)["features"] == []


def test_a_large_slide_makes_a_small_file(monkeypatch: pytest.MonkeyPatch) -> None:
    coords = grid(100, 150, 100)
    values = np.random.default_rng(1).random(len(coords))
    size = Size(15_000, 10_000)
    made = attention_geojson(coords, 100, values / values.sum(), size, 0.25)
    assert len(json.dumps(made)) < 1_500_000
    monkeypatch.setattr(heat, "MOST_AREAS", 50)
    few = attention_geojson(coords, 100, values / values.sum(), size, 0.25)
    assert len(few["features"]) == 100
    kept = [shape(f["geometry"]).area for f in few["features"]]
    whole = [shape(f["geometry"]).area for f in made["features"]]
    assert max(kept) == max(whole)
    assert few["left_out"][STRONG] > 50


@pytest.mark.parametrize(("n", "lengths"), [(40, (8, 8)), (16, (8, 8)), (7, (4, 3)), (1, (1, 0))])
def test_strongest_and_weakest_share_no_patch(n: int, lengths: tuple[int, int]) -> None:
    values = np.random.default_rng(n).permutation(n).astype(float)
    strong, weak = strongest_and_weakest(values)
    assert (len(strong), len(weak)) == lengths
    assert not set(strong) & set(weak)
    assert values[strong].tolist() == sorted(values, reverse=True)[: len(strong)]
    assert values[weak].tolist() == sorted(values)[: len(weak)]


def test_the_sheet_shows_the_patches_in_their_places() -> None:
    values = np.linspace(0, 1, 16) / 8
    strong, weak = strongest_and_weakest(values)
    images = {row: np.full((64, 64, 3), 10 * row + 20, np.uint8) for row in range(16)}
    sheet = np.asarray(draw_attention_sheet(values, strong, weak, images, "s1"))
    centres = [14 + 152 * place + 72 for place in range(8)]
    assert [int(sheet[7 + 30 + 72, x, 0]) for x in centres] == [10 * row + 20 for row in strong]
    assert [int(sheet[7 + 196 + 30 + 72, x, 0]) for x in centres] == [10 * row + 20 for row in weak]


def test_the_pyramid_opens_in_openslide_with_its_resolution(tmp_path: Path) -> None:
    picture = np.full((900, 1300, 3), 240, np.uint8)
    picture[300:500, 600:900] = (200, 30, 40)
    path = tmp_path / "heat.tif"
    write_pyramid(path, picture, (4.0, 4.0), "attention")
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.dimensions == (1300, 900)
        assert slide.level_dimensions == ((1300, 900), (650, 450), (325, 225), (163, 113))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(4.0, rel=1e-3)
        for level, shrink in enumerate((1, 2, 4, 8)):
            shown = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))
            red = shown[..., 0].astype(int) - shown[..., 1] > 85
            rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
            assert abs(rows[0] - 300 / shrink) <= 1, level
            assert abs(columns[-1] + 1 - 900 / shrink) <= 1
        np.testing.assert_allclose(
            np.asarray(slide.read_region((700, 400), 0, (1, 1)))[0, 0, :3], (200, 30, 40), atol=6
        )
    with open_slide(path) as own:
        assert own.info.mpp == pytest.approx(4.0, rel=1e-3)
    first = path.read_bytes()
    write_pyramid(path, picture, (4.0, 4.0), "attention")
    assert path.read_bytes() == first
