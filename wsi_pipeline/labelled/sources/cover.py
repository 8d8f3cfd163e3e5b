"""The exact fraction of each grid patch that an area covers, even for outlines with a million points."""

from __future__ import annotations

import shapely
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.geometry import Size

Cell = tuple[int, int]
"""Column and row of a patch in the grid that is anchored at (0, 0)."""

_FULL = 1 - 1e-12


def covered_cells(area: BaseGeometry, size: Size, patch: int, stride: int) -> dict[Cell, float]:
    """The fraction (0 to 1) of each patch that `area` covers, for the patches it touches.

    area            valid, in level-0 pixels, within the slide
    size            level-0 pixels: every patch that starts on the slide is in the grid
    patch, stride   level-0 pixels

    The grid is halved recursively and the area clipped to each half, so that each patch meets only the piece of
    the outline that runs through it.
    """
    found: dict[Cell, float] = {}
    if area.is_empty:
        return found
    left, top, right, bottom = area.bounds
    columns = _touched(left, right, size.width, patch, stride)
    rows = _touched(top, bottom, size.height, patch, stride)
    if columns and rows:
        _descend(area, columns, rows, patch, stride, found)
    return found


def _touched(low: float, high: float, length: int, patch: int, stride: int) -> range:
    """Indices of the patches, along one axis, that may meet low to high."""
    first = max(0, int((low - patch) // stride))
    return range(first, min((length - 1) // stride, int(high // stride)) + 1)


def _descend(
    area: BaseGeometry, columns: range, rows: range, patch: int, stride: int, found: dict[Cell, float]
) -> None:
    x, y = columns.start * stride, rows.start * stride
    extent = shapely.box(x, y, (columns.stop - 1) * stride + patch, (rows.stop - 1) * stride + patch)
    piece = shapely.intersection(area, extent)
    if piece.area <= 0:
        return
    if piece.area >= extent.area * _FULL:
        found.update(((column, row), 1.0) for column in columns for row in rows)
    elif len(columns) == len(rows) == 1:
        found[columns.start, rows.start] = piece.area / extent.area
    elif len(columns) >= len(rows):
        middle = (columns.start + columns.stop) // 2
        _descend(piece, range(columns.start, middle), rows, patch, stride, found)
        _descend(piece, range(middle, columns.stop), rows, patch, stride, found)
    else:
        middle = (rows.start + rows.stop) // 2
        _descend(piece, columns, range(rows.start, middle), patch, stride, found)
        _descend(piece, columns, range(middle, rows.stop), patch, stride, found)
