"""Windows cover a slide once, and their pixels vote for the mask pixels that they lie in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.slide_files import write_pyramid_tiff
from tests.stages.cohorts import blob_slide
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.tissue_networks.published import WINDOW
from wsi_pipeline.tissue_networks.windows import (
    SlideBoxes,
    Votes,
    WholePicture,
    is_flat,
    recompressed,
    run_windows,
    windows_of,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1700), st.integers(1, 1700))
def test_windows_cover_every_pixel_once_and_lie_inside(width, height):
    covered = np.zeros((height, width), np.uint8)
    for window, fresh in windows_of(Size(width, height)):
        covered[fresh.y : fresh.bottom, fresh.x : fresh.right] += 1
        assert 0 <= window.x <= fresh.x
        assert fresh.right <= window.right <= width
        assert 0 <= window.y <= fresh.y
        assert fresh.bottom <= window.bottom <= height
        assert (window.width, window.height) == (min(WINDOW, width), min(WINDOW, height))
    assert (covered == 1).all()


@pytest.mark.parametrize(
    ("canvas", "mask"),
    [((1300, 700), (162, 88)), ((60, 40), (240, 160)), ((1000, 600), (333, 200)), ((513, 1), (5, 1))],
)
def test_votes_are_the_shares_of_the_pixels_whatever_the_windows(canvas, mask):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, canvas[::-1]).astype(np.uint8)
    by_windows, at_once = (Votes(Size(*canvas), Size(*mask), 3) for _ in range(2))
    for _, fresh in windows_of(Size(*canvas)):
        by_windows.add(labels[fresh.y : fresh.bottom, fresh.x : fresh.right], fresh)
    at_once.add(labels, Box(0, 0, *canvas))
    assert np.array_equal(by_windows.counts, at_once.counts)
    assert len(np.unique(at_once.counts.sum(axis=0))) == 1
    fine = Votes(Size(4, 2), Size(2, 1), 3)
    fine.add(np.array([[0, 1, 2, 2], [1, 1, 0, 2]], np.uint8), Box(0, 0, 4, 2))
    assert fine.share((1,)).tolist() == [[0.75, 0.0]]
    assert fine.share((0, 2)).tolist() == [[0.25, 1.0]]


def test_boxes_read_one_by_one_equal_the_whole_picture(tmp_path):
    path = write_pyramid_tiff(tmp_path / "a.svs", blob_slide(1, side=1536), mpp=0.5, compression="none")
    with open_slide(path) as slide:
        boxes, whole = SlideBoxes(slide, 0.5, 1.0), WholePicture(slide, 0.5, 1.0)
        assert boxes.size == whole.size == Size(768, 768)
        for window, _ in windows_of(boxes.size):
            assert np.array_equal(boxes.read(window), whole.read(window))


def test_the_network_is_run_only_where_there_is_something_and_white_fills_small_slides():
    class Half:
        size = Size(900, 300)

        def read(self, box):
            picture = np.full((300, 900, 3), 240, np.uint8)
            picture[100:200, 700:800] = (150, 90, 170)
            return picture[box.y : box.bottom, box.x : box.right]

    seen = []

    def dark(windows):
        seen.append(windows[0])
        return (windows.mean(axis=3) < 200).astype(np.uint8)

    votes = Votes(Half.size, Size(90, 30), 2)
    assert run_windows(Half(), dark, votes, glass=0) == 1
    assert seen[0].shape == (WINDOW, WINDOW, 3)
    assert (seen[0][300:] == 255).all()
    truth = np.zeros((30, 90), bool)
    truth[10:20, 70:80] = True
    assert np.array_equal(votes.share((1,)) == 1, truth)
    skipped = Votes(Half.size, Size(90, 30), 2)
    assert run_windows(Half(), dark, skipped, 0, wanted=lambda box: box.x == 0) == 0
    assert (skipped.counts.sum(axis=0)[:, 52:] == 0).all()


def test_flat_is_glass_with_noise_and_not_pale_tissue():
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(236, 5, (512, 512, 3)), 0, 255).astype(np.uint8)
    assert is_flat(glass)
    pale = glass.copy()
    pale[200:300, 200:300, 1] -= 6
    assert not is_flat(pale)
    assert not is_flat(np.full((8, 8, 3), 255, np.uint8))


def test_jpeg_is_made_with_red_and_blue_exchanged():
    picture = blob_slide(2, side=256)
    found = recompressed(picture, 80)
    assert found.shape == picture.shape
    assert np.abs(found.astype(int) - picture).mean() < 8
    assert np.array_equal(recompressed(picture[..., ::-1], 80)[..., ::-1], _plain_jpeg(picture))


def _plain_jpeg(picture):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=80)
    return np.asarray(Image.open(out))
