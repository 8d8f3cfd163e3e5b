"""Slides through OpenSlide: Aperio, Hamamatsu, Leica, MIRAX, Philips, Ventana, DICOM, tiled TIFF and more."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.images.white import white
from wsi_pipeline.slides.metadata import number, one_mpp
from wsi_pipeline.slides.slide import Level, Slide, SlideInfo, level_box

log = logging.getLogger(__name__)

CANNOT_OPEN = "OpenSlide cannot open it"
_WHOLE = re.compile(r"-?\d{1,9}")


class OpenSlideSlide(Slide):
    """One slide open in OpenSlide; for DICOM, `path` is any file of the series.

    Raises SlideError when OpenSlide cannot open it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        handle = _open(path)
        self._handle: openslide.OpenSlide | None = handle
        self._numbers = list(range(handle.level_count))
        x, y = (number(self.property(name)) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y))
        mpp, note = one_mpp(x, y)
        self.info = SlideInfo(
            levels=tuple(
                Level(Size(*size), float(downsample))
                for size, downsample in zip(handle.level_dimensions, handle.level_downsamples, strict=True)
            ),
            mpp=mpp,
            objective=number(self.property(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
            vendor=self.property(openslide.PROPERTY_NAME_VENDOR) or "unknown",
            backend="openslide",
            mpp_note=note,
            notes=_dicom_notes(self.property),
            bounds=self._bounds(),
        )

    def first_of_each_size(self) -> None:
        """Drop levels of the same size as an earlier one: OpenSlide lists additional focal planes as levels."""
        sizes = [level.size for level in self.info.levels]
        self._numbers = [number for number, size in enumerate(sizes) if size not in sizes[:number]]
        self.info = replace(self.info, levels=tuple(self.info.levels[number] for number in self._numbers))

    def property(self, name: str) -> str:
        """A property as OpenSlide names it (`dicom.SeriesInstanceUID`), or an empty string."""
        if self._handle is None:
            raise SlideError("slide is closed")
        try:
            return str(self._handle.properties[name])
        except (KeyError, UnicodeDecodeError):  # damaged files can hold text that is not UTF-8
            return ""

    def _bounds(self) -> Box | None:
        """`openslide.bounds-*`; None unless all four are whole numbers, as QuPath takes them."""
        texts = [self.property(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
        if not all(_WHOLE.fullmatch(text) for text in texts):
            return None
        return Box(*(int(text) for text in texts))

    def _read(self, x: int, y: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        handle = self._handle
        if handle is None:
            raise SlideError("slide is closed")
        number = self._numbers[level]
        corner = _on_pixel(self.info.levels[level], x, y)
        try:
            return _rgb_on_white(handle.read_region(corner, number, (width, height)))
        except openslide.OpenSlideError as error:
            log.debug("%s: reading (%d, %d) at level %d failed: %s", self._path, x, y, level, error)
        return self._read_again(handle, corner, number, (width, height))

    def _read_again(
        self, dead: openslide.OpenSlide, corner: tuple[int, int], level: int, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Read once more on a fresh handle.

        An error kills an OpenSlide handle for every thread that shares it, so the error seen may be another
        region's. The dead handle is dropped, not closed: other threads may still be inside it.
        """
        with self._lock:
            if self._handle is dead:
                self._handle = _open(self._path)
        with _open(self._path) as own:
            try:
                return _rgb_on_white(own.read_region(corner, level, size))
            except openslide.OpenSlideError as error:
                raise SlideError(
                    f"region at ({corner[0]}, {corner[1]}), level {level}, {size[0]} x {size[1]} pixels "
                    f"does not decode: {reason(error, self._path)}",
                    todo="The file is damaged there; copy it again from its source.",
                ) from error

    def close(self) -> None:
        """Release the file; OpenSlide closes it when the last read in another thread has finished."""
        with self._lock:
            self._handle = None


def _on_pixel(level: Level, x: int, y: int) -> tuple[int, int]:
    """The level-0 position nearest to the pixel that `level_box` takes: between pixels, OpenSlide mixes them.

    It takes whole numbers only: with a downsample of 4.008 a share of at most 1/8 of the neighbour is left.
    """
    box = level_box(level, x, y, 1, 1)
    return round(box.x * level.downsample), round(box.y * level.downsample)


def _dicom_notes(stated: Callable[[str], str]) -> tuple[str, ...]:
    """A note if a DICOM slide has several optical paths; OpenSlide refuses several focal planes."""
    paths = number(stated("dicom.NumberOfOpticalPaths")) or 1
    if paths < 2 and stated("dicom.OpticalPathSequence[1].OpticalPathIdentifier"):
        return ("the first of several optical paths is shown",)
    return (f"the first of {paths:g} optical paths is shown",) if paths > 1 else ()


def reason(error: Exception, path: Path) -> str:
    """OpenSlide's reason in one line, without the path of the file."""
    text = " ".join(str(error).split()).replace(f"Reading {path}: ", "").replace(str(path), path.name)
    return text.rstrip(".") or type(error).__name__


def _open(path: Path) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise SlideError("OpenSlide does not know this format", todo="Convert it to a tiled pyramid TIFF.") from None
    except (openslide.OpenSlideError, OSError) as error:
        raise SlideError(
            f"{CANNOT_OPEN}: {reason(error, path)}",
            todo="Check that the copy is complete, or convert it to a tiled pyramid TIFF.",
        ) from error


def _rgb_on_white(image: Image.Image) -> NDArray[np.uint8]:
    """OpenSlide's RGBA over white, (h, w, 3); the common cases (all opaque, all clear) without arithmetic.

    Pillow's raw packers split the bands several times faster than `getchannel` and `convert`.
    """
    alpha = np.frombuffer(image.tobytes("raw", "A"), np.uint8)
    if not alpha.any():
        return white(*image.size)
    if alpha.min() < 255:
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    rgb = np.frombuffer(bytearray(image.tobytes("raw", "RGB")), np.uint8)
    return rgb.reshape(image.height, image.width, 3)
