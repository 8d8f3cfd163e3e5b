"""Small pictures: bounded, readable again, honest about transparency and about what they are not."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from fixture import paint_slide
from numpy.typing import NDArray
from PIL import Image
from skimage.data import immunohistochemistry

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.report.maps.pictures import data_uri, picture_size, plan_pictures, shrink_png


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("as_bytes", [True, False])
def test_longer_side_is_bounded_and_shape_kept(as_bytes: bool) -> None:
    pixels = paint_slide(0, 900, 600)[0]
    encoded = shrink_png(png(Image.fromarray(pixels)) if as_bytes else pixels, 300)
    assert picture_size(encoded) == (300, 200)
    assert len(encoded) < len(png(Image.fromarray(pixels))) / 20


def test_never_enlarged_and_colours_kept() -> None:
    pixels = np.full((40, 30, 3), (200, 90, 160), np.uint8)
    back = Image.open(io.BytesIO(shrink_png(pixels, 600))).convert("RGB")
    assert back.size == (30, 40)
    assert np.abs(np.asarray(back).astype(int) - pixels).max() < 8


@pytest.mark.parametrize("seed", range(3))
def test_the_faster_encoding_is_about_as_close_to_the_original_and_as_large(seed: int) -> None:
    """Beside libwebp's default effort at quality 80: at most 0.25 dB further from the picture, 10 % larger."""
    pixels = paint_slide(seed, 550, 400)[0]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=80, method=4)
    mine = shrink_png(pixels, 550)
    assert mine[:4] == b"RIFF"
    assert decibels(mine, pixels) > decibels(out.getvalue(), pixels) - 0.25
    assert len(mine) < 1.1 * len(out.getvalue())


def test_large_pictures_are_jpeg_nearly_as_close_and_not_much_larger() -> None:
    """Real tissue beside libwebp's default effort at quality 80: at most 0.25 dB further, 1.3 times as large."""
    pixels = np.pad(immunohistochemistry(), ((0, 88), (0, 288), (0, 0)), mode="reflect")
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=80, method=4)
    mine = shrink_png(pixels, 800)
    assert mine[:3] == b"\xff\xd8\xff"
    assert decibels(mine, pixels) > decibels(out.getvalue(), pixels) - 0.25
    assert len(mine) < 1.3 * len(out.getvalue())


def decibels(encoded: bytes, pixels: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of an encoded picture."""
    back = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), float)
    return float(10 * np.log10(255**2 / np.mean((back - pixels) ** 2)))


def test_extreme_shapes_keep_at_least_one_pixel() -> None:
    assert picture_size(shrink_png(np.zeros((1, 5000, 3), np.uint8), 100)) == (100, 1)


def test_transparent_parts_become_white() -> None:
    back = Image.open(io.BytesIO(shrink_png(Image.new("RGBA", (20, 20), (0, 0, 0, 0))))).convert("RGB")
    assert np.asarray(back).min() > 250


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_data_addresses_name_what_they_hold(kind: str, mime: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (3, 3)).save(out, kind)
    head, body = data_uri(out.getvalue()).split(",")
    assert head == f"data:{mime};base64"
    assert base64.b64decode(body) == out.getvalue()


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(WsiPipelineError, match="PNG, JPEG or WebP"):
        data_uri(b"<svg/>")


def test_larger_cohorts_get_smaller_and_then_fewer_pictures() -> None:
    plans = [plan_pictures(n, 3, 1) for n in (1, 30, 100, 300, 1000, 5000, 50_000)]
    for name in ("side", "sheet", "models"):
        values = [getattr(plan, name) for plan in plans]
        assert values == sorted(values, reverse=True), name
    assert plans[0].models == 3
    assert plans[4].slides == 1000
    assert plans[-1].slides == plans[-2].slides < 5000
    assert plan_pictures(10, 0).sheet == 0
