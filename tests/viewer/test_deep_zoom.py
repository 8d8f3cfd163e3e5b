"""Tiles are the slide's own: stored bytes where they fit, the right pixels everywhere, nothing beyond the picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import openslide
import pytest
import simplejpeg
from PIL import Image

from tests.slide_files import tissue_like, write_generic_tiff, write_pyramid_tiff
from wsi_pipeline.errors import UsageError
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.tiles.tile_level import TiledLevel
from wsi_pipeline.viewer import deep_zoom
from wsi_pipeline.viewer.deep_zoom import JPEG, PNG, DeepZoom, Tile


def pixels_of(tile: Tile) -> np.ndarray:
    if tile.media == JPEG:
        return simplejpeg.decode_jpeg(tile.data, "RGB")
    return np.asarray(Image.open(io.BytesIO(tile.data)).convert("RGB"))


@pytest.fixture
def svs(tmp_path: Path) -> Path:
    return write_pyramid_tiff(tmp_path / "a.svs", tissue_like(1100, 700), mpp=0.25)


def test_every_tile_of_the_slides_levels_equals_openslide(svs: Path) -> None:
    with open_slide(svs) as slide, openslide.OpenSlide(str(svs)) as other:
        zoom = DeepZoom(slide)
        stored = [(number, level) for number, level in enumerate(zoom.levels) if level.stored]
        assert [level.size.width for _, level in stored] == [275, 1100]
        for number, level in stored:
            for row in range(level.rows):
                for column in range(level.columns):
                    tile, box = zoom.tile(number, column, row), level.box(column, row)
                    x, y = (round(v * other.level_downsamples[level.source]) for v in (box.x, box.y))
                    theirs = other.read_region((x, y), level.source, (box.width, box.height)).convert("RGB")
                    if level.source == 0:
                        np.testing.assert_array_equal(pixels_of(tile), np.asarray(theirs))
                    else:  # OpenSlide interpolates between the pixels of lower levels
                        assert pixels_of(tile).shape == (box.height, box.width, 3)
                    whole = (box.width, box.height) == (256, 256)
                    assert tile.media == (JPEG if whole else PNG), "tiles at the edge end with the picture"


def test_stored_bytes_are_sent_as_they_are(svs: Path) -> None:
    with open_slide(svs) as slide:
        zoom = DeepZoom(slide)
        finest = len(zoom.levels) - 1
        stored = slide.tiles(0)
        assert stored is not None
        assert zoom.tile(finest, 1, 1).data == stored.raw(1, 1)
        scan = zoom.tile(finest, 1, 1).data.rpartition(b"\xff\xda")[2]
        assert scan in svs.read_bytes(), "the compressed scan is that of the file"


@pytest.mark.parametrize("compression", ["jpeg2000", "lzw"])
def test_other_compressions_are_decoded_on_the_slides_grid(tmp_path: Path, compression: str) -> None:
    picture = tissue_like(600, 400)
    path = write_pyramid_tiff(tmp_path / "a.svs", picture, mpp=0.25, compression=compression)
    with open_slide(path) as slide:
        zoom = DeepZoom(slide)
        number = len(zoom.levels) - 1
        tile, box = zoom.tile(number, 0, 0), zoom.levels[number].box(0, 0)
        assert tile.media == JPEG
        near = picture[: box.height, : box.width].astype(int) - pixels_of(tile)
        assert np.abs(near).mean() < 6, "but for the loss of the JPEG it is encoded as"


@pytest.mark.parametrize("kept", [1 << 24, 0])
def test_a_slide_with_one_level_gets_coarser_ones_that_show_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(deep_zoom, "_KEPT_PIXELS", kept)
    picture = tissue_like(4100, 1300)
    path = write_generic_tiff(tmp_path / "flat.tif", picture, mpp=0.5)
    with open_slide(path) as slide:
        zoom = DeepZoom(slide)
        assert [level.size.width for level in zoom.levels] == [513, 1025, 2050, 4100] or zoom.levels[
            0
        ].size.width <= 512
        for number, level in enumerate(zoom.levels[:-1]):
            row = [pixels_of(zoom.tile(number, column, 0)) for column in range(level.columns)]
            joined = np.concatenate(row, axis=1)
            assert joined.shape[1] == level.size.width
            step = level.factor
            wide = joined.shape[1] - 1
            truth = np.asarray(Image.fromarray(picture[: joined.shape[0] * step, : wide * step]).reduce(step))
            near = np.abs(truth.astype(int) - joined[: truth.shape[0], :wide])
            assert near[:-1].mean() < 4


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(column, row, shrink) of every tile that is decoded from now on."""
    found, whole = [], TiledLevel.decode

    def decode(self: TiledLevel, column: int, row: int, shrink: int = 1, out: object = None) -> object:
        found.append((column, row, shrink))
        return whole(self, column, row, shrink, out)

    monkeypatch.setattr(TiledLevel, "decode", decode)
    return found


def test_the_tiles_of_a_coarse_jpeg_2000_level_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tissue_like(1100, 700)
    path = write_pyramid_tiff(tmp_path / "a.svs", picture, mpp=0.25, compression="jpeg2000", levels=(1,))
    with open_slide(path) as slide:
        zoom, found = DeepZoom(slide), decoded(monkeypatch)
        assert [level.size.width for level in zoom.levels] == [275, 550, 1100]
        for number, level in reversed(list(enumerate(zoom.levels))):
            places = [(column, row) for row in range(level.rows) for column in range(level.columns)]
            media = {zoom.tile(number, *place).media for place in places}
            assert media == {JPEG}, "encoded again, so nothing is gained by a PNG at the edge"
        assert sorted(found) == [(column, row, 1) for column in range(5) for row in range(3)]


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_coarse_levels_of_a_large_flat_slide_come_from_tiles_shrunk_while_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setattr(deep_zoom, "_KEPT_PIXELS", 0)
    picture = tissue_like(1100, 700)
    path = write_pyramid_tiff(tmp_path / "a.svs", picture, mpp=0.25, compression=compression, levels=(1,))
    with open_slide(path) as slide:
        zoom, found = DeepZoom(slide), decoded(monkeypatch)
        shown = pixels_of(zoom.tile(0, 0, 0))
        assert zoom.levels[0].factor == 4
        assert sorted(found) == [(column, row, 4) for column in range(5) for row in range(3)]
        truth = np.asarray(Image.fromarray(picture).reduce(4)).astype(int)
        assert np.abs(truth - shown).mean() < 4


def test_wide_gaps_between_levels_are_filled(tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "gap.svs", tissue_like(4096, 2048), mpp=0.25, levels=(1, 16))
    with open_slide(path) as slide:
        widths = [level.size.width for level in DeepZoom(slide).levels]
        assert widths == [256, 1024, 4096]


@pytest.mark.parametrize("place", [(9, 0, 0), (-1, 0, 0), (1, 99, 0), (1, 0, -1)])
def test_tiles_that_are_not_there_are_refused(svs: Path, place: tuple[int, int, int]) -> None:
    with open_slide(svs) as slide, pytest.raises(UsageError, match=r"no (tile|level)"):
        DeepZoom(slide).tile(*place)
