"""Writers of small real slide files for tests: Aperio-like pyramids, sparse, stripped, flat, RGBA and damaged TIFF."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

APERIO_JPEG2000_RGB = 33005
_MICRONS_PER_CENTIMETRE = 10_000.0


def tissue_like(width: int, height: int, seed: int = 0) -> Pixels:
    """An RGB image (h, w, 3) with smooth pink and purple areas, fine grain and a white margin."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    mix = np.asarray(coarse, np.float64)[..., None] / 255
    colour = mix * np.array([225, 150, 190]) + (1 - mix) * np.array([110, 60, 150])
    image = np.clip(colour + rng.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)
    margin = max(1, min(width, height) // 16)
    image[:margin], image[:, :margin] = 255, 255
    return image


def shrunk(rgb: Pixels, step: int) -> Pixels:
    """Block means of `step` x `step` pixels; an incomplete last row or column of blocks is left out."""
    height, width = (side // step * step for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb[:height, :width])).reduce(step))


def write_pyramid_tiff(
    path: Path,
    rgb: Pixels,
    *,
    mpp: float | None,
    tile: int = 256,
    levels: Sequence[int] = (1, 4),
    compression: str = "jpeg",
    objective: float | None = 20,
    bigtiff: bool = False,
) -> Path:
    """Write an Aperio-like tiled pyramid TIFF that OpenSlide takes for "aperio"; returns `path`.

    mpp, objective   written into the ImageDescription; None leaves them out
    levels           whole-number shrink of each level, 1 first
    compression      "jpeg" (quality 90, 4:2:0), "jpeg2000" (lossless, Aperio's code 33005), "lzw" or "none"
    """
    options = {"photometric": "rgb", "tile": (tile, tile), **_codec(compression)}
    height, width = rgb.shape[:2]
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for step in levels:
            image = rgb if step == 1 else shrunk(rgb, step)
            text = f"{width}x{height} [0,0 {width}x{height}] ({tile}x{tile})"
            text += "" if step == 1 else f" -> {image.shape[1]}x{image.shape[0]}"
            description = f"Aperio Image Library v12.0.0 \r\n{text} JPEG/RGB Q=90{_aperio_fields(mpp, objective)}"
            writer.write(image, description=description, metadata=None, **options)
            if step == 1:  # the second image of an Aperio file is its thumbnail, stripped
                small = shrunk(rgb, max(1, min(width, height) // 64))
                description = (
                    f"Aperio Image Library v12.0.0 \r\n{width}x{height} -> {small.shape[1]}x{small.shape[0]} - "
                )
                writer.write(small, photometric="rgb", compression="jpeg", description=description, metadata=None)
    return path


def write_generic_tiff(
    path: Path, pixels: Pixels, *, mpp: float | None = None, tile: int = 256, compression: str = "lzw", **options: Any
) -> Path:
    """Write one tiled image without vendor metadata: RGB, RGBA (give extrasamples) or grey (h, w)."""
    kind = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", **resolution(mpp), **options}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, tile=(tile, tile), metadata=None, **{**_codec(compression), **kind})
    return path


def write_sparse_tiff(
    path: Path, rgb: Pixels, missing: Collection[tuple[int, int]], *, mpp: float = 0.5, tile: int = 128
) -> Path:
    """Write an Aperio-like LZW TIFF that holds no data for the `missing` tiles (row, column)."""
    height, width = rgb.shape[:2]

    def tiles() -> Iterator[Pixels | None]:
        for row in range(-(-height // tile)):
            for column in range(-(-width // tile)):
                part = rgb[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
                full = np.full((tile, tile, 3), 255, np.uint8)
                full[: part.shape[0], : part.shape[1]] = part
                yield None if (row, column) in missing else full

    description = f"Aperio Image Library v12.0.0 \r\n{width}x{height}{_aperio_fields(mpp, 20)}"
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            tiles(), shape=rgb.shape, dtype=np.uint8, tile=(tile, tile), photometric="rgb", compression="lzw",
            description=description, metadata=None,
        )  # fmt: skip
    return path


def write_stripped_tiff(
    path: Path, rgb: Pixels, *, rows: int | None = 32, compression: str = "jpeg", mpp: float | None = None
) -> Path:
    """Write one level in strips of `rows` rows; None for one strip. OpenSlide refuses such files."""
    options = {**_codec(compression), **resolution(mpp)}
    tifffile.imwrite(path, rgb, photometric="rgb", rowsperstrip=rows or rgb.shape[0], metadata=None, **options)
    return path


def write_ome_tiff(path: Path, rgb: Pixels, *, mpp: float, tile: int = 128, levels: Sequence[int] = (1, 2, 4)) -> Path:
    """Write an OME-TIFF pyramid with its lower levels in SubIFDs, of which OpenSlide sees only level 0."""
    options = {"photometric": "rgb", "tile": (tile, tile), "compression": "lzw"}
    metadata = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp,
                "PhysicalSizeYUnit": "µm"}  # fmt: skip
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(rgb, subifds=len(levels) - 1, metadata=metadata, **options)
        for step in levels[1:]:
            writer.write(shrunk(rgb, step), subfiletype=1, **options)
    return path


def damage_tile(path: Path, index: int, page: int = 0) -> None:
    """Overwrite the data of one tile with 0xFF, which no codec reads."""
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[page].dataoffsets[index], tiff.pages[page].databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)


def resolution(mpp: float | tuple[float, float] | None) -> dict[str, Any]:
    """tifffile options that write `mpp` (or x and y) as the resolution tags."""
    if mpp is None:
        return {}
    x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    return {"resolution": (_MICRONS_PER_CENTIMETRE / x, _MICRONS_PER_CENTIMETRE / y), "resolutionunit": "CENTIMETER"}


def _codec(compression: str) -> dict[str, Any]:
    return {
        "jpeg": {"compression": "jpeg", "compressionargs": {"level": 90}, "subsampling": (2, 2)},
        "jpeg2000": {"compression": APERIO_JPEG2000_RGB, "compressionargs": {"level": 0}},
        "none": {},
    }.get(compression, {"compression": compression})


def _aperio_fields(mpp: float | None, objective: float | None) -> str:
    fields = {"AppMag": objective, "MPP": mpp}
    return "".join(f"|{name} = {value:g}" for name, value in fields.items() if value is not None)
