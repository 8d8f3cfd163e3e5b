"""Fast drawing changes no pixel: compared with plain arithmetic, and PNG files read back."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from tests.report.plain_heat import patch_field, plain_blend, plain_field, plain_gradient
from wsi_pipeline.geometry import Size
from wsi_pipeline.images.png import decode_png, encode_png
from wsi_pipeline.report.maps.heatmaps import Heat, blend_heat, draw_heat

SIZE = Size(20_000, 24_100)


def grid(step: int, seed: int, share: float = 0.4) -> NDArray[np.int64]:
    """Patches of a grid, some left out."""
    every = np.stack(np.meshgrid(np.arange(0, 20_000, step), np.arange(0, 24_000, step)), -1).reshape(-1, 2)
    return every[np.random.default_rng(seed).random(len(every)) < share].astype(np.int64)


@pytest.mark.parametrize("signed", [False, True], ids=["attention", "contribution"])
@pytest.mark.parametrize(("side", "step"), [(512, 512), (512, 256), (1000, 613)], ids=["grid", "half", "odd"])
def test_a_blended_picture_equals_plain_arithmetic(signed: bool, side: int, step: int) -> None:
    rng = np.random.default_rng(side + step)
    picture = rng.integers(0, 256, (723, 601, 3), np.uint8)
    coords = grid(step, seed=step)
    values = rng.standard_normal(len(coords)) * (rng.random(len(coords)) < 0.9)
    made = (
        Heat.of_contribution(coords, side, values, "a") if signed else Heat.of_attention(coords, side, np.abs(values))
    )
    before = picture.copy()
    np.testing.assert_array_equal(blend_heat(picture, SIZE, made, 0.6), plain_blend(picture, SIZE, made, 0.6))
    np.testing.assert_array_equal(picture, before)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    boxes=st.lists(st.tuples(st.integers(-50, 1100), st.integers(-50, 800), st.floats(-5, 5)), max_size=20),
    side=st.integers(1, 500),
    band=st.tuples(st.integers(0, 39), st.integers(1, 40)),
)
def test_a_field_by_cells_equals_the_field_by_pixels(
    shape: tuple[int, int], boxes: list[tuple[int, int, float]], side: int, band: tuple[int, int]
) -> None:
    first = min(band[0], shape[0] - 1)
    rows = (first, min(shape[0], first + band[1]))
    coords = np.array([box[:2] for box in boxes], np.int64).reshape(-1, 2)
    values = np.array([box[2] for box in boxes])
    found = patch_field(shape, Size(1000, 700), coords, side, values, rows)
    for mine, plain in zip(found, plain_field(shape, Size(1000, 700), coords, side, values, rows), strict=True):
        np.testing.assert_array_equal(mine, plain)


@pytest.mark.parametrize("width", [120, 301, 640, 1200])
@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]], ids=["gradient", "flat"])
def test_the_gradient_is_that_of_one_line_a_column(width: int, values: list[float]) -> None:
    coords = np.array([[0, 0], [512, 0], [0, 512]], np.int64)
    heat = Heat.of_attention(coords, 512, np.array(values))
    picture = np.full((90, width, 3), 240, np.uint8)
    drawn = draw_heat(picture, Size(2000, 1500), heat)
    bar = np.asarray(drawn)[90:]
    coloured = np.flatnonzero((bar.max(axis=2).astype(int) - bar.min(axis=2) > 40).any(axis=0))
    start, right = int(coloured[0]), int(coloured[-1]) + 1
    font_px = max(11, round(drawn.width * 0.026))
    top, line = 90 + font_px, font_px
    again = drawn.copy()
    again.paste((255, 255, 255), (start, top, right, int(top + 0.8 * line) + 1))
    assert not np.array_equal(np.asarray(again), np.asarray(drawn))
    plain_gradient(again, start, right, (top + 0.1 * line, top + 0.8 * line), heat)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(drawn))


@settings(max_examples=30, deadline=None)
@given(pixels=arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3))))
def test_a_png_is_read_back_with_its_pixels_and_texts(pixels: NDArray[np.uint8]) -> None:
    texts = {"digest": "a1" * 32, "settings": '{"µm": 2.0}', "other": "\u4e2d"}
    data = encode_png(pixels, texts)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        assert {key: str(value) for key, value in image.info.items()} == texts
        np.testing.assert_array_equal(np.asarray(image), pixels)
    assert encode_png(pixels, texts) == data
    np.testing.assert_array_equal(decode_png(data), pixels)


def test_pngs_of_others_and_damaged_ones_are_left_to_pillow() -> None:
    pixels = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    mine = encode_png(pixels, {})
    cases = [mine[:-20], mine[:60] + bytes([mine[60] ^ 1]) + mine[61:], b"", b"\x89PNG", mine[:8]]
    for image in (Image.fromarray(pixels), Image.fromarray(pixels[..., 0]), Image.new("RGBA", (9, 9))):
        out = io.BytesIO()
        image.save(out, "PNG", transparency=(0, 0, 0) if image.mode == "RGB" else None)
        cases.append(out.getvalue())
    assert [decode_png(case) for case in cases] == [None] * len(cases)


def test_a_png_of_a_smooth_picture_is_compressed() -> None:
    y, x = np.mgrid[:300, :400]
    pixels = np.stack([x // 2, y // 2, (x + y) // 4], -1).astype(np.uint8)
    assert len(encode_png(pixels, {})) < pixels.nbytes / 20
