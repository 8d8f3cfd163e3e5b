"""Image files become RGB on white, whatever they store; what cannot be one is refused by a sentence, early."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.labelled.images import picture, save
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled import image_file as imagefile
from wsi_pipeline.labelled.image_patches import cut, mirrored


def read(path: Path) -> np.ndarray:
    fact = imagefile.probe_image(path)
    image = imagefile.read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == (fact.size.height, fact.size.width, 3)
    return image


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm"])
def test_lossless_rgb_comes_back_as_written(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(read(save(tmp_path / f"a.{suffix}", picture(1, 20, 12))), picture(1, 20, 12))


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_come_near(tmp_path: Path, suffix: str) -> None:
    flat = np.full((16, 24, 3), (200, 120, 160), np.uint8)
    assert np.abs(read(save(tmp_path / f"a.{suffix}", flat)).astype(int) - flat).max() <= 6


def test_grey_palette_and_one_bit_become_rgb(tmp_path: Path) -> None:
    grey = picture(2)[..., 0]
    np.testing.assert_array_equal(read(save(tmp_path / "grey.png", grey)), np.repeat(grey[..., None], 3, axis=2))
    indexed = Image.fromarray((picture(3) // 128 * 255).astype(np.uint8)).convert("P", palette=Image.Palette.ADAPTIVE)
    indexed.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read(tmp_path / "palette.png"), np.asarray(indexed.convert("RGB")))
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    assert set(np.unique(read(tmp_path / "bits.png"))) == {0, 255}


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    rgba = np.dstack([picture(4), np.full((32, 32), 255, np.uint8)])
    rgba[:16, :, 3] = 0
    image = read(save(tmp_path / "a.png", rgba))
    assert (image[:16] == 255).all()
    np.testing.assert_array_equal(image[16:], picture(4)[16:])
    indexed = Image.fromarray(picture(5)).convert("P")
    indexed.save(tmp_path / "p.png", transparency=indexed.getpixel((3, 2)))
    assert (read(tmp_path / "p.png")[2, 3] == 255).all()


def test_sixteen_bit_keeps_the_upper_eight(tmp_path: Path) -> None:
    deep = picture(6).astype(np.uint16) * 257
    Image.fromarray(deep[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read(tmp_path / "grey.png")[..., 1], picture(6)[..., 0])
    tifffile.imwrite(tmp_path / "rgb.tif", deep, photometric="rgb")
    np.testing.assert_array_equal(read(tmp_path / "rgb.tif"), picture(6))
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(deep, -1, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read(tmp_path / "planes.tif"), picture(6))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_cut_short_files_are_found_before_they_are_needed(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", picture(7, 200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LabelError, match=r"damaged|not a readable image"):
        imagefile.probe_image(path)


def test_what_is_no_image_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image at all")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((8, 8, 3), np.float32), photometric="rgb")
    for name, words in {"empty": "empty file", "text": "not a readable image", "gone": "no such file"}.items():
        with pytest.raises(LabelError, match=words):
            imagefile.probe_image(tmp_path / f"{name}.png")
    with pytest.raises(LabelError, match="float32"):
        imagefile.read_image(tmp_path / "float.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice that before we know the size
    with pytest.raises(LabelError, match=r"pixels exceed the limit of .* is it a slide"):
        imagefile.read_image(save(tmp_path / "huge.png", picture(1)))
    monkeypatch.undo()
    monkeypatch.setattr(imagefile, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(LabelError, match=r"32 x 32 pixels exceed the limit of .* is it a slide"):
        imagefile.probe_image(save(tmp_path / "large.png", picture(1)))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 32))
def test_the_centred_square_is_taken(width: int, height: int, side: int) -> None:
    image = picture(8, width, height)
    short = min(width, height)
    top, left = (height - short) // 2, (width - short) // 2
    square = imagefile.fit_square(image, side)
    assert square.shape == (side, side, 3)
    if side == short:
        np.testing.assert_array_equal(square, image[top : top + short, left : left + short])
    if short % side == 0:
        blocks = image[top : top + short, left : left + short].reshape(side, short // side, side, short // side, 3)
        assert np.abs(square - blocks.mean((1, 3))).max() <= 1


@given(st.integers(1, 9), st.integers(1, 9), st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 30))
def test_crops_are_mirrored_past_the_border(width: int, height: int, x: int, y: int, side: int) -> None:
    image = picture(9, width, height)
    before, after = [max(0, -y), max(0, -x)], [max(0, y + side - height), max(0, x + side - width)]
    padded = np.pad(image, [(before[0], after[0]), (before[1], after[1]), (0, 0)], mode="reflect")
    expected = padded[y + before[0] : y + before[0] + side, x + before[1] : x + before[1] + side]
    np.testing.assert_array_equal(cut(image, x, y, side), expected)


@given(st.integers(-99, 99), st.integers(1, 50), st.integers(2, 20))
def test_mirrored_indices_step_by_one(start: int, count: int, length: int) -> None:
    index = mirrored(start, count, length)
    assert 0 <= index.min() <= index.max() < length
    assert (np.abs(np.diff(index)) == 1).all()
