"""Every backend on every kind of file it reads, against the shared contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.slide_files import (
    tissue_like,
    write_generic_tiff,
    write_ome_tiff,
    write_pyramid_tiff,
    write_sparse_tiff,
    write_stripped_tiff,
)
from tests.suites.slide_contract import Pixels, SlideCase, SlideContract
from wsi_pipeline.slides.backends.array import ArraySlide
from wsi_pipeline.slides.open import open_slide

RGB = tissue_like(704, 544)
MISSING = {(0, 1), (2, 2), (4, 5)}


def _rgba(partly: bool) -> Pixels:
    alpha = np.full(RGB.shape[:2], 255, np.uint8)
    alpha[100:300, 200:500] = 0
    if partly:
        alpha[300:400, 100:600] = np.linspace(0, 255, 500).astype(np.uint8)
    return np.dstack([RGB, alpha])


def _flattened(rgba: Pixels) -> Pixels:
    cover = rgba[..., 3:].astype(np.float64) / 255
    return np.rint(rgba[..., :3] * cover + 255 * (1 - cover)).astype(np.uint8)


def _sparse() -> Pixels:
    image = RGB.copy()
    for row, column in MISSING:
        image[row * 128 : (row + 1) * 128, column * 128 : (column + 1) * 128] = 255
    return image


def _decoded(path: Path) -> Pixels:
    """Level 0 as tifffile decodes it in one go."""
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[0].asarray()


Maker = Callable[[Path], tuple[Path, Pixels, int]]


def _lossless(write: Callable[[Path], Path], level0: Pixels = RGB, tolerance: int = 0) -> Maker:
    return lambda path: (write(path), level0, tolerance)


def _lossy(write: Callable[[Path], Path]) -> Maker:
    def make(path: Path) -> tuple[Path, Pixels, int]:
        write(path)
        return path, _decoded(path), 0

    return make


GREY = RGB[..., 0]
FILES: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "aperio-jpeg": (
        _lossy(lambda p: write_pyramid_tiff(p, RGB, mpp=0.5, levels=(1, 4, 16))),
        ("openslide", "tiffslide", "jpegtiff"),
    ),
    "aperio-jpeg2000": (
        _lossless(lambda p: write_pyramid_tiff(p, RGB, mpp=0.5, compression="jpeg2000")),
        ("openslide", "tiffslide", "jpegtiff"),
    ),
    "bigtiff-lzw": (
        _lossless(lambda p: write_pyramid_tiff(p, RGB, mpp=0.5, compression="lzw", bigtiff=True, tile=128)),
        ("openslide", "tiffslide"),
    ),
    "sparse": (_lossless(lambda p: write_sparse_tiff(p, RGB, MISSING), _sparse()), ("openslide", "tiffslide")),
    "rgba-holes": (
        _lossless(lambda p: write_generic_tiff(p, _rgba(False), extrasamples=["unassalpha"]), _flattened(_rgba(False))),
        ("openslide", "tiffslide"),
    ),
    "rgba-partly": (
        _lossless(
            lambda p: write_generic_tiff(p, _rgba(True), extrasamples=["unassalpha"]), _flattened(_rgba(True)), 2
        ),
        ("openslide", "tiffslide"),
    ),
    "grey": (
        _lossless(lambda p: write_generic_tiff(p, GREY), np.repeat(GREY[..., None], 3, axis=2)),
        ("openslide", "tiffslide"),
    ),
    "planes": (
        _lossless(lambda p: write_generic_tiff(p, np.moveaxis(RGB, 2, 0), planarconfig="separate")),
        ("openslide",),
    ),
    "jpeg2000-generic": (
        _lossless(lambda p: write_generic_tiff(p, RGB, compression="jpeg_2000_lossy")),
        ("tiffslide", "jpegtiff"),
    ),
    "webp": (_lossless(lambda p: write_generic_tiff(p, RGB, compression="webp")), ("tiffslide",)),
    "ome": (_lossless(lambda p: write_ome_tiff(p, RGB, mpp=0.5)), ("tiffslide",)),
    "stripped-jpeg": (_lossy(lambda p: write_stripped_tiff(p, RGB)), ("tiffslide",)),
    "one-strip-lzw": (_lossless(lambda p: write_stripped_tiff(p, RGB, rows=None, compression="lzw")), ("tiffslide",)),
    "flat": (_lossless(lambda p: write_stripped_tiff(p, RGB, rows=None, compression="none")), ("tiffslide",)),
}
LEVELS = {"aperio-jpeg": 3, "aperio-jpeg2000": 2, "bigtiff-lzw": 2, "ome": 3}
PAIRS = [(name, backend) for name, (_, backends) in FILES.items() for backend in backends]


class TestFiles(SlideContract):
    @pytest.fixture(scope="class", params=PAIRS, ids="-".join)
    def case(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SlideCase:
        name, backend = request.param
        path, level0, tolerance = FILES[name][0](tmp_path_factory.mktemp(name) / f"{name}.tif")
        return SlideCase(lambda: open_slide(path, backend), level0, tolerance, LEVELS.get(name, 1))


class TestArray(SlideContract):
    @pytest.fixture(scope="class", params=["rgb", "rgba"])
    def case(self, request: pytest.FixtureRequest) -> SlideCase:
        pixels, level0 = (RGB, RGB) if request.param == "rgb" else (_rgba(True), _flattened(_rgba(True)))
        return SlideCase(lambda: ArraySlide(pixels, mpp=0.5, downsamples=(1, 4, 16)), level0, tolerance=1, levels=3)


@pytest.mark.parametrize(("x", "column"), [(0, 0), (1, 0), (2, 1), (5, 1), (6, 2), (-2, 0), (-3, -1)])
def test_between_two_pixels_of_a_level_the_nearest_is_taken(x: int, column: int, tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", RGB, mpp=0.5, compression="lzw", levels=(1, 4))
    array = ArraySlide(RGB, downsamples=(1, 4))
    with open_slide(path, "tiffslide") as tiff, open_slide(path, "openslide") as other, array:
        for slide in (tiff, other, array):
            wide = slide.read_region(-400, 0, 1, 200, 9)  # column c of the level is column c + 100 here
            assert np.array_equal(slide.read_region(x, 0, 1, 20, 9), wide[:, column + 100 : column + 120])
