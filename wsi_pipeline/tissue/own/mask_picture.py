"""Mask pictures of any mode: which pixels they mark, and where they lie on a slide."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.tiff.decode import PICTURE_ERRORS

MAX_MASK_PIXELS = 1 << 27
_MOST_LABELS = 32
"""A picture of more values than this is a photograph or a probability map, unless nearly all are black or white."""
_CLEAR, _EDGE = 0.95, 8
_SAME_SHAPE = 0.01
"""Relative difference in aspect ratio that rounding and thumbnails may cause."""
_TODO = "Save it as a picture of the whole slide in which tissue is white (255) and all else black (0)."


def read_mask_picture(path: Path) -> NDArray[np.bool_]:
    """Pixels (h, w) that a mask marks. Black and transparent ones are not marked; every other value is.

    1-bit, grey, palette, RGB, RGBA and 16-bit pictures. Grey edges of a black and white picture are cut in the middle.
    Raises SlideError if the file is not a picture, is too large, holds several of one size, or is not a mask (many
    values, or no black).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            if image.width * image.height > MAX_MASK_PIXELS:
                raise SlideError(
                    f"tissue mask {path.name} of {image.width} x {image.height} pixels is too large",
                    todo="Shrink it to about 8 micrometres per pixel.",
                )
            _refuse_stack(image, path.name)
            values, opaque = _values(image)
    except PICTURE_ERRORS as error:
        raise SlideError(
            f"tissue file {path.name} is neither GeoJSON nor a picture ({' '.join(str(error).split())[:120]})",
            todo="Give a GeoJSON file of outlines, or a PNG mask of the whole slide.",
        ) from None
    return _marked(values, opaque, path.name)


def _refuse_stack(image: Image.Image, name: str) -> None:
    """Raise SlideError if a second picture of the same size follows: it is unclear which one is the mask."""
    size = image.size
    if getattr(image, "n_frames", 1) < 2:
        return
    image.seek(1)
    same = image.size == size
    image.seek(0)
    if same:
        raise SlideError(
            f"tissue mask {name} holds {getattr(image, 'n_frames', 2)} pictures, and at least two have the same size",
            todo="Save the one that is the mask as a file of its own.",
        )


def _values(image: Image.Image) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """One number for each pixel, 0 for black, and whether the pixel is opaque, both (h, w)."""
    if image.mode == "1":
        return np.asarray(image, np.int64) * 255, np.ones((image.height, image.width), np.bool_)
    if image.mode in ("L", "I", "F") or image.mode.startswith("I;"):
        grey = np.nan_to_num(np.asarray(image))
        if grey.dtype.kind == "f" and 0 < grey.max(initial=0) <= 1:
            grey = grey * 255
        return np.asarray(grey, np.int64), np.ones(grey.shape, np.bool_)
    rgba = np.asarray(image.convert("RGBA"), np.int64)
    colour = rgba[..., :3]
    same = (colour.max(axis=2) == colour.min(axis=2)).all()
    values = colour[..., 0] if same else colour[..., 0] << 16 | colour[..., 1] << 8 | colour[..., 2]
    alpha = rgba[..., 3]
    return values, (alpha > 0) & (2 * alpha >= alpha.max(initial=0))


def _marked(values: NDArray[np.int64], opaque: NDArray[np.bool_], name: str) -> NDArray[np.bool_]:
    seen = values[opaque]
    kinds = np.unique(seen)
    if len(kinds) == 0:
        return np.zeros(values.shape, np.bool_)
    if not opaque.all():
        # On a transparent background everything drawn is tissue, black too, unless there are other colours as well.
        only_black = len(kinds) == 1
        return opaque if only_black else opaque & (values > 0)
    if len(kinds) <= _MOST_LABELS:
        if kinds[0] > 0 and len(kinds) > 1:
            raise SlideError(
                f"tissue mask {name} has no black background, so it is unclear which values are tissue", todo=_TODO
            )
        return np.asarray(values > 0)
    if kinds[0] >= 0 and kinds[-1] <= 255 and _is_two_toned(seen):
        return np.asarray(values >= 128)
    raise SlideError(f"tissue file {name} has {len(kinds):,} different values and is not a mask", todo=_TODO)


def _is_two_toned(values: NDArray[np.int64]) -> bool:
    return bool(((values <= _EDGE) | (values >= 255 - _EDGE)).mean() >= _CLEAR)


def place_picture(
    marked: NDArray[np.bool_], name: str, slide: Size, bounds: Box | None, mask: Size
) -> NDArray[np.bool_]:
    """The mask on the whole slide: unchanged if it spans the slide, or placed at the slide's bounds.

    mask   size to which a finer mask is shrunk; a pixel is tissue if at least half of it is

    Raises SlideError if it matches the shape of neither.
    """
    height, width = marked.shape
    own = Size(width, height)
    if _fits(own, slide):
        return _shrunk(marked, mask)
    if bounds is not None and bounds.width > 0 and bounds.height > 0 and _fits(own, Size(bounds.width, bounds.height)):
        return _laid(_shrunk(marked, _part(mask, slide, bounds)), slide, bounds)
    turned = "; it seems to be rotated by 90 degrees" if _fits(Size(height, width), slide) else ""
    raise SlideError(
        f"tissue mask {name} is {width} x {height}, not a smaller copy of the slide's {slide.width} x {slide.height} "
        f"pixels{turned}",
        todo="A mask must span the whole slide, or the column tissue_mpp states its micrometres per pixel.",
    )


def _fits(mask: Size, slide: Size) -> bool:
    """Whether `mask` is the size of `slide` divided by one factor, rounded up or down."""
    if mask.width > slide.width or mask.height > slide.height:
        return False
    if abs(mask.height * slide.width / (mask.width * slide.height) - 1) <= _SAME_SHAPE:
        return True
    least = max(slide.width / (mask.width + 1), slide.height / (mask.height + 1))
    most = min(slide.width / max(mask.width - 1, 0.5), slide.height / max(mask.height - 1, 0.5))
    return least < most


def _part(mask: Size, slide: Size, bounds: Box) -> Size:
    """Size of the slide's bounds in a mask of the slide."""
    width, height = mask.width * bounds.width / slide.width, mask.height * bounds.height / slide.height
    return Size(max(1, round(width)), max(1, round(height)))


def _laid(marked: NDArray[np.bool_], slide: Size, bounds: Box) -> NDArray[np.bool_]:
    """A mask of the bounds placed in one of the slide, to the nearest pixel."""
    height, width = marked.shape
    across, down = bounds.width / width, bounds.height / height
    whole = np.zeros((max(1, round(slide.height / down)), max(1, round(slide.width / across))), np.bool_)
    top, left = round(bounds.y / down), round(bounds.x / across)
    part = whole[max(0, top) : top + height, max(0, left) : left + width]
    part[:] = marked[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]]
    return whole


def _shrunk(marked: NDArray[np.bool_], mask: Size) -> NDArray[np.bool_]:
    height, width = marked.shape
    if width <= 2 * mask.width and height <= 2 * mask.height:
        return marked
    size = (min(width, mask.width), min(height, mask.height))
    small = Image.fromarray(np.where(marked, np.uint8(255), np.uint8(0))).resize(size, Image.Resampling.BOX)
    return np.asarray(small) >= 128
