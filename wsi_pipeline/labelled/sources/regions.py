"""Annotated regions of one slide: their classes, areas and overlaps. Level-0 pixels throughout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import shapely
from shapely import STRtree
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.geometry import Size
from wsi_pipeline.tissue.geojson import enclosed_area

_INSIDE = 0.999
"""A region with this fraction of its area in another was drawn inside it."""


@dataclass(frozen=True)
class Region:
    """One outline and its class; the polygon may still cross itself."""

    name: str
    polygon: Polygon


@dataclass(frozen=True)
class Annotation:
    """The content of an annotation file.

    regions      with a class, in their order
    others       areas annotated without a class, or with an ignored one
    left_out     what was not used, in words, with counts
    from_bounds  whether coordinates count from the corner of the slide's bounds, as QuPath's do
    ignored      those of `others` that are cut out of the regions (`Ignore*` of QuPath)
    """

    regions: tuple[Region, ...]
    others: tuple[Polygon, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    from_bounds: bool = False
    ignored: tuple[Polygon, ...] = ()

    def moved(self, x: float, y: float) -> Annotation:
        """The annotation shifted by `x` to the right and `y` down, in coordinates from level-0 (0, 0)."""
        if (x, y) == (0, 0):
            return replace(self, from_bounds=False)
        regions = tuple(Region(region.name, translate(region.polygon, x, y)) for region in self.regions)
        others, ignored = (
            tuple(translate(polygon, x, y) for polygon in polygons) for polygons in (self.others, self.ignored)
        )
        return replace(self, regions=regions, others=others, ignored=ignored, from_bounds=False)


def class_areas(regions: Sequence[Region], size: Size) -> dict[str, BaseGeometry]:
    """The area of each class on a slide of `size` level-0 pixels, valid, in the order of first mention.

    A region drawn inside one of another class wins over the one around it, as necrosis within tumour. Any
    other overlap of regions belongs to both. Outlines that cross themselves become the area they enclose.
    """
    slide = shapely.box(0, 0, size.width, size.height)
    shapes = [shapely.intersection(enclosed_area(region.polygon), slide) for region in regions]
    cut = _without_inner(shapes, [region.name for region in regions])
    names = dict.fromkeys(region.name for region in regions)
    return {
        name: union([shape for shape, region in zip(cut, regions, strict=True) if region.name == name])
        for name in names
    }


def union(shapes: Iterable[BaseGeometry]) -> BaseGeometry:
    """The union of several shapes as one area."""
    return shapely.union_all([shape for shape in shapes if not shape.is_empty])


def area_of(polygons: Iterable[Polygon | MultiPolygon], size: Size) -> BaseGeometry:
    """Several polygons as one valid area within a slide."""
    slide = shapely.box(0, 0, size.width, size.height)
    return shapely.intersection(union(enclosed_area(polygon) for polygon in polygons), slide)


def _without_inner(shapes: list[BaseGeometry], names: Sequence[str]) -> list[BaseGeometry]:
    """Each region minus the smaller regions of other classes that lie in it."""
    areas = shapely.area(np.array(shapes, dtype=object)) if shapes else np.zeros(0)
    tree = STRtree(shapes)
    cut = []
    for k, outer in enumerate(shapes):
        inner = [
            shapes[i]
            for i in tree.query(outer, predicate="intersects").tolist()
            if names[i] != names[k]
            and 0 < areas[i] < _INSIDE * areas[k]
            and shapely.intersection(shapes[i], outer).area >= _INSIDE * areas[i]
        ]
        cut.append(shapely.difference(outer, union(inner)) if inner else outer)
    return cut
