"""Slides of which OpenSlide knows that only a part was scanned: Leica SCN, and a TIFF with missing tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from tests.slide_files import Pixels, shrunk, write_generic_tiff

_NAMESPACE = "http://www.leica-microsystems.com/scn/2010/10/01"


def write_scn(path: Path, rgb: Pixels, corner: tuple[int, int], size: tuple[int, int], *, nm: int = 500) -> Path:
    """A Leica SCN of `size` level-0 pixels in which `rgb` was scanned at `corner`; `nm` is nanometres per pixel."""
    (width, height), (x, y) = size, corner
    macro = np.full((256, 512, 3), 235, np.uint8)
    pages = [macro, rgb, shrunk(rgb, 4)]
    parts = [
        _image("macro", [macro], 0, (0, 0, width * nm, height * nm), 0.6),
        _image("scan", pages[1:], 1, (x * nm, y * nm, rgb.shape[1] * nm, rgb.shape[0] * nm), 20),
    ]
    xml = (
        f'<?xml version="1.0"?><scn xmlns="{_NAMESPACE}" uuid="u"><collection name="c" uuid="c" '
        f'sizeX="{width * nm}" sizeY="{height * nm}"><barcode>U1lO</barcode>{"".join(parts)}</collection></scn>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, page in enumerate(pages):
            writer.write(
                page, photometric="rgb", tile=(256, 256), compression="jpeg", metadata=None,
                description=xml if number == 0 else None, resolution=(1e7 / nm, 1e7 / nm), resolutionunit="CENTIMETER",
            )  # fmt: skip
    return path


def _image(name: str, levels: list[Pixels], first: int, view: tuple[int, int, int, int], objective: float) -> str:
    sizes = [f'sizeX="{level.shape[1]}" sizeY="{level.shape[0]}"' for level in levels]
    dimensions = "".join(f'<dimension {size} r="{k}" ifd="{first + k}"/>' for k, size in enumerate(sizes))
    x, y, width, height = view
    return (
        f'<image name="{name}" uuid="{first}"><creationDate>2015-01-01T00:00:00Z</creationDate>'
        f'<device model="Leica SCN400;Leica SCN" version="1"/><pixels {sizes[0]}>{dimensions}</pixels>'
        f'<view sizeX="{width}" sizeY="{height}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>'
        f"<scanSettings><objectiveSettings><objective>{objective}</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.65</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
    )


def write_tiff_with_gaps(
    path: Path, rgb: Pixels, rows: int, columns: int, *, mpp: float = 0.5, tile: int = 128
) -> Path:
    """A tiled TIFF without vendor that holds nothing for its first `rows` rows and `columns` columns of tiles."""
    write_generic_tiff(path, rgb, mpp=mpp, tile=tile)
    across = -(-rgb.shape[1] // tile)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for code in (324, 325):
            tag = tiff.pages[0].tags[code]
            values = [0 if k // across < rows or k % across < columns else value for k, value in enumerate(tag.value)]
            tag.overwrite(values)
    return path
