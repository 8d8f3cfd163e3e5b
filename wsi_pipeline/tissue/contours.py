"""Tissue outlines as polygons in level-0 pixels.

The outline runs at half height between mask-pixel centres (marching squares), which cuts each corner by an
eighth of a pixel. Outward and inward corners of a closed outline differ by four, so a ring's area is within half
a mask pixel of the pixels it encloses.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from shapely.geometry import Polygon
from skimage.measure import find_contours

from wsi_pipeline.tissue.cleanup import EIGHT_CONNECTED
from wsi_pipeline.tissue.mask import TissueMask

AREA_TOLERANCE = 0.005
"""Simplifying may change the area of a polygon by this fraction at most."""


def tissue_polygons(mask: TissueMask, simplify_um: float = 4.0) -> list[Polygon]:
    """Outline every 8-connected piece of tissue, holes kept, largest piece first.

    simplify_um   no outline moves further than this, micrometres; less if the area of a small piece would change
                  by more than half a percent; 0 keeps every vertex

    Returns valid polygons in level-0 pixels, exteriors clockwise on the screen; none for an empty mask.
    """
    packed = np.packbits(mask.pixels).tobytes()
    return list(_outlined(packed, mask.pixels.shape, (mask.scale_x, mask.scale_y), simplify_um / mask.mpp))


@lru_cache(maxsize=1)
def _outlined(
    packed: bytes, shape: tuple[int, ...], scale_xy: tuple[float, float], tolerance: float
) -> tuple[Polygon, ...]:
    """Outlines of a mask given as bits. Kept for the next call: `segment` and `tile` outline the same mask."""
    count, scale = int(np.prod(shape)), np.array(scale_xy)
    pixels = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).reshape(shape)
    labels, _ = ndi.label(pixels, structure=EIGHT_CONNECTED)
    polygons = []
    for index, box in enumerate(ndi.find_objects(labels), start=1):
        exterior, *holes = _rings(labels[box] == index)
        origin = np.array([box[1].start, box[0].start])
        polygon = Polygon((exterior + origin) * scale, [(hole + origin) * scale for hole in holes])
        polygons.append(polygon)
    polygons.sort(key=lambda polygon: -polygon.area)
    return tuple(_simplified(polygon, tolerance) for polygon in polygons)


def _rings(piece: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed rings (n, 2) of x, y around one piece, in its pixels: the outer one first, then its holes."""
    padded = np.pad(piece, 1).astype(np.uint8)
    contours = find_contours(padded, 0.5, fully_connected="high")  # type: ignore[no-untyped-call]
    rings = [ring[:, ::-1] - 0.5 for ring in contours]
    return sorted(rings, key=lambda ring: -abs(_ring_area(ring)))


def _ring_area(ring: NDArray[np.float64]) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _simplified(polygon: Polygon, tolerance: float) -> Polygon:
    """Douglas-Peucker within `tolerance` pixels, or less if the area would change too much."""
    while tolerance > 1e-3:
        simple = polygon.simplify(tolerance, preserve_topology=True)
        if simple.is_valid and abs(simple.area - polygon.area) <= AREA_TOLERANCE * polygon.area:
            return simple
        tolerance /= 2
    return polygon
