"""Write pictures as pyramidal TIFF files of the kind Aperio scanners make (.svs).

Page order and descriptions follow what OpenSlide documents for the format
(https://openslide.org/formats/aperio/): full picture in JPEG tiles, thumbnail in strips, smaller levels in tiles,
then the label and macro pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from wsi_pipeline.system.atomic import atomic_path

LIBRARY = "Aperio Image Library v12.0.15"
"""The software name by which readers recognise the format."""

SMALLEST_LEVEL = 200
"""Levels are added as long as the shorter side has at least this many pixels."""


@dataclass(frozen=True)
class ScanInfo:
    """Metadata of the scan.

    name      slide_id, for the label and the description in the file
    mpp       micrometres per pixel, or None to state neither resolution nor magnification
    tile      side of the JPEG tiles, a multiple of 16
    quality   JPEG quality, 1 to 100
    maker     version of the program that painted the picture, kept in the description
    """

    name: str
    mpp: float | None
    tile: int = 256
    quality: int = 80
    maker: str = "wsi-pipeline demo"


def write_aperio(path: Path, picture: NDArray[np.uint8], info: ScanInfo) -> None:
    """Write an RGB picture, uint8 (height, width, 3), as a pyramidal JPEG TIFF with levels 1, 4, 16...

    The file appears complete or not at all: it is written under a temporary name and then renamed. The same
    arguments give the same bytes.
    """
    with atomic_path(path) as beside, tifffile.TiffWriter(beside) as tif:
        _pages(tif, picture, info)


def _pages(tif: tifffile.TiffWriter, picture: NDArray[np.uint8], info: ScanInfo) -> None:
    height, width = picture.shape[:2]
    tail = _properties(info, width, height)
    geometry = f"{width}x{height} [0,0 {width}x{height}] ({info.tile}x{info.tile})"
    _write(tif, picture, f"{LIBRARY} \r\n{geometry} JPEG/RGB Q={info.quality}{tail}", info, tiled=True)
    thumbnail = _shrink_to(picture, 1024, 768)
    size = f"{thumbnail.shape[1]}x{thumbnail.shape[0]}"
    _write(tif, thumbnail, f"{LIBRARY} \r\n{width}x{height} -> {size} - {tail}", info, tiled=False)
    level = picture
    while min(level.shape[:2]) // 4 >= SMALLEST_LEVEL:
        level = _quarter(level)
        size = f"{level.shape[1]}x{level.shape[0]}"
        text = f"{LIBRARY} \r\n{geometry} -> {size} JPEG/RGB Q={info.quality}{tail}"
        _write(tif, level, text, info, tiled=True)
    label = _label(info.name)
    text = f"{LIBRARY} \r\nlabel {label.shape[1]}x{label.shape[0]}"
    tif.write(label, description=text, compression="lzw", predictor=2, subfiletype=1, **_PLAIN)
    macro = _macro(label, thumbnail)
    text = f"{LIBRARY} \r\nmacro {macro.shape[1]}x{macro.shape[0]}"
    _write(tif, macro, text, info, tiled=False, subfiletype=9)


_PLAIN: dict[str, Any] = {"photometric": "rgb", "metadata": None, "software": False, "resolutionunit": "none"}


def _write(
    tif: tifffile.TiffWriter,
    picture: NDArray[np.uint8],
    description: str,
    info: ScanInfo,
    *,
    tiled: bool,
    subfiletype: int = 0,
) -> None:
    """Add one JPEG page, in tiles or in strips of 16 rows."""
    shape: dict[str, Any] = {"tile": (info.tile, info.tile)} if tiled else {"rowsperstrip": 16}
    coding: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": info.quality}, "maxworkers": 1}
    tif.write(picture, description=description, subfiletype=subfiletype, **shape, **coding, **_PLAIN)


def _properties(info: ScanInfo, width: int, height: int) -> str:
    """The `|key = value` part of the description."""
    scan = {} if info.mpp is None else {"AppMag": "20", "MPP": f"{info.mpp:.4f}"}
    known = {"Filename": info.name, "Date": "01/01/25", "Time": "12:00:00", "ScanScope ID": "DEMO", "Maker": info.maker}
    parts = scan | known | {"OriginalWidth": str(width), "OriginalHeight": str(height)}
    return "".join(f"|{key} = {value}" for key, value in parts.items())


def _quarter(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A quarter of the width and height by averaging 4 x 4 pixels; a remainder at the edge is dropped."""
    height, width = picture.shape[0] // 4 * 4, picture.shape[1] // 4 * 4
    return np.asarray(Image.fromarray(picture[:height, :width]).reduce(4))


def _shrink_to(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The picture shrunk to fit into width x height, proportions kept."""
    return np.asarray(ImageOps.contain(Image.fromarray(picture), (width, height), Image.Resampling.BOX))


def _label(name: str) -> NDArray[np.uint8]:
    """The paper label of the glass with the slide's name."""
    label = Image.new("RGB", (387, 463), (250, 249, 240))
    draw = ImageDraw.Draw(label)
    draw.rectangle((14, 14, 372, 448), outline=(40, 40, 40), width=3)
    draw.text((36, 60), name, fill=(20, 20, 20), font_size=44)
    draw.text((36, 130), "H&E\nsynthetic tissue", fill=(20, 20, 20), font_size=32)
    return np.asarray(label)


def _macro(label: NDArray[np.uint8], thumbnail: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole glass: label on the left, tissue on the right."""
    macro = Image.new("RGB", (1280, 431), (214, 214, 212))
    macro.paste(ImageOps.contain(Image.fromarray(label), (360, 400)), (16, 16))
    tissue = ImageOps.contain(Image.fromarray(thumbnail), (800, 380))
    macro.paste(tissue, (420 + (800 - tissue.width) // 2, (431 - tissue.height) // 2))
    return np.asarray(macro)
