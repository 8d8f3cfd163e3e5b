"""Tiles decoded here equal OpenSlide's in every dialect; shrunk ones stay near the area mean and in place."""

from __future__ import annotations

import io
import itertools
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.slide_files import damage_tile, tissue_like, write_generic_tiff, write_pyramid_tiff
from tests.slides.jpeg_tiffs import Dialect, write_jpeg_tiff
from wsi_pipeline.errors import SlideError
from wsi_pipeline.images.area_filter import area_shrink, area_weights, block_mean
from wsi_pipeline.slides.backends.array import ArraySlide
from wsi_pipeline.slides.backends.jpegtiff import JpegTiffSlide
from wsi_pipeline.slides.image_choice import ImageChoice
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.tiff.tiff_image import tiff_image

RGB = tissue_like(500, 420)
DIALECTS = {
    f"{'rgb' * d.rgb}{d.chroma}{'-tables' * d.tables}{'-bare' * (not d.jfif)}{'-big' * d.bigtiff}-{d.tile}": d
    for d in (
        *(Dialect(chroma=c, tables=t) for c, t in itertools.product(("444", "422", "420", "440", "411"), (0, 1))),
        *(Dialect(True, "444", t, bigtiff=b) for t, b in itertools.product((False, True), (False, True))),
        Dialect(jfif=False), Dialect(chroma="444", jfif=False, tables=True), Dialect(True, "444", True, tile=240),
        Dialect(tile=96, bigtiff=True), Dialect(tile=256, quality=30),
    )
}  # fmt: skip


@pytest.fixture(scope="module", params=DIALECTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Slide, Slide]:
    """The same file opened here and in OpenSlide."""
    path = write_jpeg_tiff(
        tmp_path_factory.mktemp("dialect") / "a.svs", RGB, DIALECTS[request.param], levels=(1, 2), missing=()
    )
    with open_slide(path, "jpegtiff") as ours, open_slide(path, "openslide") as theirs:
        yield ours, theirs


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_region_equals_openslides(pair: tuple[Slide, Slide], data: st.DataObject) -> None:
    ours, theirs = pair
    level = data.draw(st.integers(0, 1))
    x, y = data.draw(st.integers(-60, 520)), data.draw(st.integers(-60, 440))
    x, y = (x, y) if level == 0 else (x // 2 * 2, y // 2 * 2)
    width, height = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    found, expected = (slide.read_region(x, y, level, width, height) for slide in (ours, theirs))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("tables", [False, True])
def test_rgb_is_taken_for_rgb_without_any_marker(tables: bool, tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "a.svs", RGB, Dialect(True, "444", tables, quality=95))
    with open_slide(path, "jpegtiff") as slide:
        assert np.abs(slide.read_region(0, 0, 0, 500, 420).astype(int) - RGB).mean() < 2


def test_what_is_said_of_the_slide_is_the_same(pair: tuple[Slide, Slide]) -> None:
    ours, theirs = pair
    assert ours.info.backend == "jpegtiff"
    assert (ours.info.levels, ours.info.mpp, ours.info.vendor) == (
        theirs.info.levels, theirs.info.mpp, theirs.info.vendor,
    )  # fmt: skip


def test_shrunk_tiles_are_close_to_the_area_mean(pair: tuple[Slide, Slide]) -> None:
    tiles = pair[0].tiles(0)
    assert tiles is not None
    for row, column in itertools.product(range(tiles.rows), range(tiles.columns)):
        whole = tiles.decode(column, row)
        for shrink in tiles.scales:
            found = tiles.decode(column, row, shrink)
            difference = np.abs(found.astype(int) - block_mean(whole, shrink))
            assert found.shape == (tiles.tile.height // shrink, tiles.tile.width // shrink, 3)
            assert difference.mean() < 0.8
            assert difference.max() <= (0 if shrink == 1 else 24)


@pytest.mark.parametrize(("chroma", "most"), [("444", 0.03), ("420", 0.06), ("422", 0.1), ("440", 0.1)])
@pytest.mark.parametrize("axis", [0, 1])
def test_shrinking_shifts_nothing(chroma: str, most: float, axis: int, tmp_path: Path) -> None:
    """The phase of a wave, in pixels of the result, is that of its area mean; `most` is of chroma."""
    period = 64
    wave = 2 * np.pi * np.arange(256) / period
    line = np.stack([128 + 60 * np.cos(wave), 128 + 60 * np.cos(wave + 1), 128 - 60 * np.cos(wave + 2)], -1)
    image = np.broadcast_to(line[None] if axis else line[:, None], (256, 256, 3)).astype(np.uint8)
    dialect = Dialect(chroma=chroma, tile=256, quality=98)
    with open_slide(write_jpeg_tiff(tmp_path / "a.svs", image, dialect), "jpegtiff") as slide:
        tiles = slide.tiles(0)
        assert tiles is not None
        whole = tiles.decode(0, 0)
        assert tiles.scales == ((1, 2, 4, 8) if chroma in ("444", "420") else (1, 2))
        for shrink in tiles.scales[1:]:
            phases = [
                np.angle((part.mean(1 - axis).T * np.exp(-1j * wave[::shrink])).sum(1))
                for part in (tiles.decode(0, 0, shrink).astype(float), block_mean(whole, shrink).astype(float))
            ]
            shift = (phases[0] - phases[1]) * period / (2 * np.pi) / shrink
            assert np.abs(shift).max() < most


def test_jpeg_2000_is_shrunk_in_place(tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(tissue_like(64, 64)).resize((512, 512), Image.Resampling.BICUBIC))
    path = write_pyramid_tiff(tmp_path / "a.svs", smooth, mpp=0.5, compression="jpeg2000", levels=(1,))
    with open_slide(path, "jpegtiff") as slide:
        tiles = slide.tiles(0)
        assert tiles is not None
        assert tiles.scales[:3] == (1, 4, 8)
        for shrink in tiles.scales:
            found, whole = tiles.decode(1, 1, shrink), tiles.decode(1, 1)
            inner = np.abs(found.astype(int) - block_mean(whole, shrink))[:-1, :-1]
            assert inner.mean() < 0.1 * shrink
            assert tiles.raw(1, 1) is None


def test_missing_tiles_are_white(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "a.svs", RGB, Dialect(), missing={0, 6})
    with open_slide(path, "jpegtiff") as slide, open_slide(path, "openslide") as theirs:
        assert np.array_equal(slide.read_region(0, 0, 0, 500, 420), theirs.read_region(0, 0, 0, 500, 420))
        tiles = slide.tiles(0)
        assert tiles is not None
        assert tiles.raw(2, 1) is None
        assert (tiles.decode(2, 1, 4) == 255).all()
        assert tiles.decode(1, 1, 4).min() < 250


def test_levels_that_openslide_repairs_stay_with_it(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "a.svs", RGB, Dialect(), levels=(1, 2), missing={6})
    with open_slide(path) as slide, open_slide(path, "openslide") as theirs:
        assert (slide.info.backend, slide.tiles(1)) == ("jpegtiff", None)
        assert np.array_equal(slide.read_region(0, 0, 1, 250, 210), theirs.read_region(0, 0, 1, 250, 210))


@pytest.mark.parametrize("dialect", [Dialect(tables=True), Dialect(True, "444", True), Dialect(chroma="444")])
def test_a_tile_as_a_file_of_its_own_keeps_its_pixels(dialect: Dialect, tmp_path: Path) -> None:
    with open_slide(write_jpeg_tiff(tmp_path / "a.svs", RGB, dialect), "jpegtiff") as slide:
        tiles = slide.tiles(0)
        assert tiles is not None
        raw = tiles.raw(1, 2)
        assert raw is not None
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(raw))), tiles.decode(1, 2))


def test_beyond_the_edge_of_the_level_tiles_are_white(tmp_path: Path) -> None:
    with open_slide(write_jpeg_tiff(tmp_path / "a.svs", RGB, Dialect()), "jpegtiff") as slide:
        tiles = slide.tiles(0)
        assert tiles is not None
        corner = tiles.decode(3, 3)
        assert (corner[420 - 3 * 128 :] == 255).all()
        assert (corner[:, 500 - 3 * 128 :] == 255).all()
        assert np.array_equal(tiles.decode(3, 3, 4), block_mean(corner, 4))


def test_subifds_of_a_generic_tiff_are_found(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "a.tif", RGB, Dialect(), levels=(1, 2, 4), aperio=False, subifds=True)
    with open_slide(path) as slide, open_slide(path, "tiffslide") as theirs:
        assert slide.info.backend == "jpegtiff"
        for number, level in enumerate(slide.info.levels):
            assert slide.tiles(number) is not None
            size = (level.size.width, level.size.height)
            assert np.array_equal(slide.read_region(0, 0, number, *size), theirs.read_region(0, 0, number, *size))


def test_a_damaged_tile_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "a.svs", RGB, Dialect(tile=96))
    with open_slide(path, "jpegtiff") as slide:
        good = slide.read_region(0, 0, 0, 96, 96)
    damage_tile(path, 8)  # row 1, column 2 of 6 columns
    with open_slide(path, "jpegtiff") as slide, ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: slide.read_region(0, 0, 0, 96, 96), range(20)):
            assert np.array_equal(found, good)
        with pytest.raises(SlideError, match=r"tile at \(192, 96\) of level 0 does not decode"):
            slide.read_region(200, 100, 0, 10, 10)


def test_a_tile_that_ends_early_is_damaged(tmp_path: Path) -> None:
    path = write_jpeg_tiff(tmp_path / "a.svs", RGB, Dialect(tile=96))
    damage_tile(path, 8)
    with open_slide(path, "jpegtiff") as slide, open_slide(path, "openslide") as theirs:
        for each in (slide, theirs):
            with pytest.raises(SlideError):
                each.read_region(200, 100, 0, 10, 10)


def test_other_pixels_than_the_other_backends_are_not_trusted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_jpeg_tiff(tmp_path / "a.svs", RGB, Dialect())
    with caplog.at_level(logging.INFO), pytest.raises(SlideError, match="comparison"):
        JpegTiffSlide(path, ArraySlide(255 - RGB), tiff_image(path, ImageChoice()))
    assert "a.svs: level 0 is read by array: pixels of tile" in caplog.text


@pytest.mark.parametrize("kind", ["packbits", "rgba", "grey"])
def test_what_is_not_understood_is_read_by_openslide_and_the_log_says_why(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = {"packbits": RGB, "rgba": np.dstack([RGB, RGB[..., 0]]), "grey": RGB[..., 0]}[kind]
    extra = {"rgba": {"extrasamples": ["unassalpha"]}, "packbits": {"compression": "packbits"}}.get(kind, {})
    path = write_generic_tiff(tmp_path / "a.tif", pixels, **extra)
    with caplog.at_level(logging.INFO), open_slide(path) as slide:
        assert (slide.info.backend, slide.tiles(0)) == ("openslide", None)
    assert "a.tif is read by openslide: " in caplog.text
    with pytest.raises(SlideError, match="jpegtiff cannot read it"):
        open_slide(path, "jpegtiff")


def test_a_closed_slide_gives_no_tiles_and_a_reader_under_way_is_not_disturbed(tmp_path: Path) -> None:
    slide = open_slide(write_jpeg_tiff(tmp_path / "a.svs", RGB, Dialect()), "jpegtiff")
    tiles = slide.tiles(0)
    assert tiles is not None
    before = tiles.decode(1, 1)
    slide.close()
    assert slide.tiles(0) is None
    assert np.array_equal(tiles.decode(1, 1), before)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_the_fast_area_filter_is_the_area_mean(one: int, other: int, seed: int) -> None:
    n, side = max(one, other), min(one, other)
    image = np.random.default_rng(seed).integers(0, 256, (n, n, 3), np.uint8)
    weights = area_weights(n, side)
    exact = np.einsum("ai,ijc,bj->abc", weights, image.astype(float), weights, optimize=True)
    assert np.abs(area_shrink(image, side) - exact).max() <= 0.6
