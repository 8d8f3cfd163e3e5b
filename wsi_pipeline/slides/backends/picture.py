"""PNG and JPEG pictures of a region as single-level slides; their resolution comes from the manifest."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.backends.array import ArraySlide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.tiff.decode import PICTURE_ERRORS

MAX_PICTURE_PIXELS = 1 << 27
"""128 Mpx: a picture is decoded whole, 0.4 GB at this size."""

_RGBA = {"RGBA", "LA", "PA", "La", "RGBa"}
_EIGHT_BIT = {"1", "L", "P", "RGB"} | _RGBA
_PNG_DEPTH_AT = 24
_CONVERT = "Convert it to an 8-bit RGB picture or a tiled TIFF."


def open_picture(path: Path) -> Slide:
    """Open a PNG or JPEG file: grey, palette and alpha become RGB on white, and an EXIF orientation is applied.

    Raises SlideError for more than 8 bits, CMYK, damage, and more than 128 Mpx.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=("PNG", "JPEG", "MPO"))
        with image:
            _check(image, path)
            turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
            upright = ImageOps.exif_transpose(image)
            clear = image.mode in _RGBA or "transparency" in image.info
            pixels = np.asarray(upright.convert("RGBA" if clear else "RGB"))
    except PICTURE_ERRORS as error:
        raise SlideError(
            f"the picture cannot be read: {' '.join(str(error).split())[:200]}",
            todo="Copy the file again from its source.",
        ) from error
    slide = ArraySlide(pixels)
    notes = ("rotated as its EXIF orientation says",) if turned else ()
    slide.info = replace(slide.info, vendor="picture", backend="picture", notes=notes)
    return slide


_ORIENTATION = 274


def _check(image: Image.Image, path: Path) -> None:
    if image.width * image.height > MAX_PICTURE_PIXELS:
        raise SlideError(
            f"picture of {image.width} x {image.height} pixels, above the limit of {MAX_PICTURE_PIXELS >> 20} Mpx",
            todo="Convert it to a tiled pyramid TIFF: vips tiffsave in.png out.tif --tile --pyramid.",
        )
    with path.open("rb") as file:
        head = file.read(_PNG_DEPTH_AT + 1)
    deep = image.format == "PNG" and len(head) > _PNG_DEPTH_AT and head[_PNG_DEPTH_AT] > 8
    if deep or image.mode not in _EIGHT_BIT:
        what = "with 16 bits per channel" if deep else f"in mode {image.mode}"
        raise SlideError(f"picture {what}, not 8-bit grey or RGB", todo=_CONVERT)
