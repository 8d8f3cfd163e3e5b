"""Patch pixels: resized, encoded as JPEG and decoded."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import StoreError
from wsi_pipeline.images.area_filter import area_shrink

Pixels = NDArray[np.uint8]


def shrink_to(region: Pixels, side: int) -> Pixels:
    """A square uint8 region at (side, side, 3), shrunk by exact area means or enlarged bicubically."""
    size = region.shape[0]
    if size == side:
        return region
    if side > size:
        return np.asarray(Image.fromarray(region).resize((side, side), Image.Resampling.BICUBIC))
    return area_shrink(np.ascontiguousarray(region), side)


def encode_jpeg(patch: Pixels, quality: int) -> bytes:
    """One patch as JPEG, 4:4:4 so that stain colours are not smeared."""
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(patch), quality, "RGB", "444")
    return data


def decode_jpeg(data: bytes) -> Pixels:
    """uint8 (h, w, 3) from JPEG bytes. Raises StoreError if they are damaged."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        raise StoreError(
            f"a stored JPEG is damaged: {error}", todo="Recreate the patch store with wsi-pipeline tile."
        ) from error
    return pixels
