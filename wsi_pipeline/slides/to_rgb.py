"""From stored samples (grey, RGB, alpha) to uint8 RGB on white. Pure functions on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.images.white import white


def on_white(rgba: NDArray[np.uint8], premultiplied: bool = False) -> NDArray[np.uint8]:
    """Lay RGBA (h, w, 4) over white: (h, w, 3).

    premultiplied   colours already multiplied by alpha (TIFF "associated alpha")

    Fully opaque pixels keep their value exactly; fully transparent ones become exactly white.
    """
    alpha = rgba[..., 3:]
    low = int(alpha.min(initial=255))
    if low == 255:
        return np.ascontiguousarray(rgba[..., :3])
    if int(alpha.max(initial=0)) == 0:
        return white(rgba.shape[1], rgba.shape[0])
    colour, cover = rgba[..., :3].astype(np.uint16), alpha.astype(np.uint16)
    if premultiplied:
        mixed = np.minimum(colour + (255 - cover), 255)
    else:
        mixed = (colour * cover + 255 * (255 - cover) + 127) // 255
    return np.asarray(mixed, np.uint8)


def grey_to_rgb(grey: NDArray[np.uint8], white_is_zero: bool = False) -> NDArray[np.uint8]:
    """Repeat one grey channel (h, w, 1) three times: (h, w, 3)."""
    values = 255 - grey if white_is_zero else grey
    return np.repeat(values, 3, axis=2)


def windowed(samples: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Samples of any kind as uint8: the lower value of the window (and below) 0, the upper one (and above) 255."""
    low, high = window
    scaled = (samples.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255) + np.float32(0.5), np.uint8)
