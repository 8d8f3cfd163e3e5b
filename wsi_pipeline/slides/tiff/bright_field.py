"""Whether a TIFF image can be shown as 8-bit bright-field RGB, checked before any backend opens the file."""

from __future__ import annotations

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.tiff.directories import Directory

CONVERT = "Convert it to a tiled 8-bit RGB pyramid TIFF."
OR_CONVERT = "or convert it to a tiled 8-bit RGB pyramid TIFF."
MIN_IS_WHITE, MIN_IS_BLACK, RGB, YCBCR = 0, 1, 2, 6
ASSOCIATED, UNASSOCIATED = 1, 2
"""ExtraSamples: alpha already multiplied into the colours, and alpha that is not."""
_KIND_NAMES = {"u": "uint", "i": "int", "f": "float"}
_SHOWABLE_BITS = (8, 16, 32, 64)


def check_bright_field(image: Directory, window: tuple[float, float] | None) -> None:
    """Raise SlideError in one sentence if an image is neither 8-bit RGB or grey nor converted to it by a `window`."""
    _check_depth(image)
    if (image.bits, image.kind) != (8, "u") and window is None:
        raise SlideError(
            f"TIFF with {_samples(image)} samples; only 8-bit samples are supported",
            todo="Write the values that become black and white into the manifest's column channel (`@0-4095` for 12 "
            f"bits), {OR_CONVERT}",
        )
    _check_bits(image)
    grey = image.photometric in (MIN_IS_BLACK, MIN_IS_WHITE) and image.samples == 1
    colour = image.photometric in (RGB, YCBCR) and image.samples in (3, 4)
    if not grey and not colour:
        raise SlideError(
            f"TIFF with {image.samples} samples per pixel of kind {image.photometric_name}, not RGB or grey",
            todo=CONVERT,
        )
    check_alpha(image)


def check_alpha(image: Directory) -> None:
    """Raise SlideError if a fourth sample is not marked as alpha."""
    if image.samples == 4 and image.photometric in (RGB, YCBCR) and image.extra not in (ASSOCIATED, UNASSOCIATED):
        raise SlideError(
            "TIFF with a fourth sample per pixel that is not marked as alpha",
            todo=f"Write 0+1+2 into the manifest's column channel to read its colours alone, {OR_CONVERT}",
        )


def check_channels(image: Directory, window: tuple[float, float] | None) -> None:
    """Raise SlideError if single channels of an image cannot be shown as grey, or need a display range."""
    _check_depth(image)
    if image.photometric not in (MIN_IS_BLACK, MIN_IS_WHITE, RGB):
        raise SlideError(f"channels of a TIFF of kind {image.photometric_name} cannot be shown", todo=CONVERT)
    if (image.bits, image.kind) != (8, "u") and window is None:
        raise SlideError(
            f"TIFF with {_samples(image)} samples: the channel needs a display range",
            todo="Write the values that become black and white after it, as in `0@100-4000`.",
        )
    _check_bits(image)


def _check_depth(image: Directory) -> None:
    if image.depth != 1:
        raise SlideError(f"TIFF volume of depth {image.depth}, not a flat image", todo=CONVERT)


def _check_bits(image: Directory) -> None:
    if image.bits not in _SHOWABLE_BITS or image.kind not in _KIND_NAMES:
        raise SlideError(f"TIFF with {_samples(image)} samples; only 8-bit samples are supported", todo=CONVERT)


def _samples(image: Directory) -> str:
    if not image.bits:
        return "unequal"
    kind = _KIND_NAMES.get(image.kind)
    return f"{image.bits}-bit {kind}{max(8, image.bits)}" if kind else f"{image.bits}-bit"
