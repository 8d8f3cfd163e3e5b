"""The patch reader: every row once and in order, pixels equal to OpenSlide's, from slides and stores alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from tests.slide_files import damage_tile, tissue_like, write_pyramid_tiff
from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.reading.patch_reader import PatchReader, SlidePatches, decode_jpeg, encode_jpeg, shrink_to
from wsi_pipeline.slides.backends.array import ArraySlide
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.tiling.resolve import PatchGeometry, resolve_geometry


def grid(width: int, height: int, step: int) -> np.ndarray:
    return np.array([(x, y) for y in range(0, height, step) for x in range(0, width, step)], dtype=np.int64)


@pytest.mark.parametrize(("batch", "threads", "start"), [(1, 1, 0), (4, 3, 0), (7, 2, 5), (100, 2, 0), (4, 2, 20)])
def test_every_row_once_and_in_order(batch: int, threads: int, start: int) -> None:
    image = tissue_like(320, 256)
    slide = ArraySlide(image, mpp=0.5)
    geometry = PatchGeometry(64, 64, 64, 0, 64, 0.5, False)
    coords = grid(320, 256, 64)
    rows = []
    for first, patches in PatchReader(SlidePatches(slide, coords, geometry), batch, threads, start):
        assert patches.dtype == np.uint8
        for k, patch in enumerate(patches):
            x, y = coords[first + k]
            np.testing.assert_array_equal(patch, image[y : y + 64, x : x + 64])
            rows.append(first + k)
    assert rows == list(range(start, len(coords)))


def test_no_patches_is_no_batches() -> None:
    slide = ArraySlide(tissue_like(64, 64), mpp=0.5)
    source = SlidePatches(slide, np.zeros((0, 2), np.int64), PatchGeometry(64, 64, 64, 0, 64, 0.5, False))
    assert list(PatchReader(source, 8)) == []


def check_against_openslide(path: Path, spec: TileSpec, mpp: float, most: int = 40) -> None:
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        geometry = resolve_geometry(spec, slide.info, mpp)
        assert geometry.level_px == geometry.patch_px, "a native read"
        width, height = slide.info.size.width, slide.info.size.height
        coords = grid(width, height, geometry.patch_level0)
        coords = coords[:: max(1, len(coords) // most)]
        source = SlidePatches(slide, coords, geometry)
        for first, patches in PatchReader(source, 16):
            for k, patch in enumerate(patches):
                x, y = (int(value) for value in coords[first + k])
                rgba = reference.read_region((x, y), geometry.level, (geometry.patch_px, geometry.patch_px))
                white = Image.new("RGBA", rgba.size, "white")
                np.testing.assert_array_equal(patch, np.asarray(Image.alpha_composite(white, rgba).convert("RGB")))


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_native_pixels_equal_openslide(tmp_path: Path, compression: str) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", tissue_like(1100, 900), mpp=0.5, compression=compression)
    check_against_openslide(path, TileSpec(), 0.5)
    check_against_openslide(path, TileSpec(mpp=2.0, patch_px=64), 0.5)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "mpp"),
    [("CMU-1-Small-Region.svs", 0.499), ("metaplasia-HE.svs", 0.2528), ("TCGA-CR-7395-01A-01-TS1.svs", 0.5)],
)
def test_native_pixels_of_real_slides_equal_openslide(data_dir: Path, name: str, mpp: float) -> None:
    check_against_openslide(data_dir / "slides" / name, TileSpec(mpp=mpp), mpp)


@pytest.mark.parametrize(("side", "out"), [(512, 256), (500, 256), (768, 256), (257, 256)])
def test_shrinking_is_an_area_mean(side: int, out: int) -> None:
    image = tissue_like(side, side, seed=3)
    edges = np.arange(out + 1) * side / out
    weights = np.clip(
        np.minimum(edges[1:, None], np.arange(1, side + 1)) - np.maximum(edges[:-1, None], np.arange(side)), 0, None
    )
    weights /= weights.sum(1, keepdims=True)
    exact = np.einsum("ai,ijc,bj->abc", weights, image.astype(float), weights, optimize=True)
    assert np.abs(shrink_to(image, out) - exact).max() <= 1.01


def test_shrinking_leaves_what_fits_and_enlarges_what_is_small() -> None:
    image = tissue_like(64, 64)
    assert shrink_to(image, 64) is image
    assert shrink_to(image, 128).shape == (128, 128, 3)


def test_a_damaged_tile_is_named_by_patch_and_position(tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", tissue_like(768, 512), mpp=0.5, levels=(1,))
    damage_tile(path, 4)  # second row of three: x 256, y 256
    coords = grid(768, 512, 256)
    with open_slide(path) as slide:
        reader = PatchReader(SlidePatches(slide, coords, PatchGeometry(256, 256, 256, 0, 256, 0.5, False)), 2)
        with pytest.raises(SlideError, match=r"patch 4 at \(256, 256\)"):
            list(reader)


def test_jpeg_keeps_colour_close() -> None:
    image = tissue_like(128, 128)
    assert np.abs(decode_jpeg(encode_jpeg(image, 95)).astype(int) - image).mean() < 4
