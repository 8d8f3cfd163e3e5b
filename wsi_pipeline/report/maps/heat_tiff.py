"""A picture of the whole slide as a pyramidal tiled TIFF with its resolution, for OpenSlide and QuPath."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.system.atomic import atomic_path

TILE = 256
QUALITY = 85
_UM_PER_CM = 10_000.0


def write_pyramid(path: Path, picture: NDArray[np.uint8], mpp: tuple[float, float], description: str) -> None:
    """Write uint8 (h, w, 3) in JPEG tiles with levels 1, 2, 4... until one tile holds all; atomically.

    mpp           micrometres per pixel of the picture in x and y, written to the resolution tags
    description   ASCII text for ImageDescription: how the picture was made

    The same arguments give the same bytes.
    """
    with atomic_path(path) as beside, tifffile.TiffWriter(beside, bigtiff=False) as tiff:
        level, shrink = picture, 1
        while True:
            tiff.write(
                level,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": QUALITY},
                resolution=(_UM_PER_CM / (mpp[0] * shrink), _UM_PER_CM / (mpp[1] * shrink)),
                resolutionunit="centimeter",
                subfiletype=0 if shrink == 1 else 1,
                description=description if shrink == 1 else None,
                metadata=None,
                software="wsi-pipeline",
                maxworkers=1,
            )
            if max(level.shape[:2]) <= TILE:
                break
            level, shrink = np.asarray(Image.fromarray(level).reduce(2)), shrink * 2
