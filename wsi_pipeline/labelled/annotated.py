"""Labels from slides with annotations: patches on the grid of `tile`, at the exact resolution."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from shapely.geometry.base import BaseGeometry

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.labelled.annotation import read_annotation
from wsi_pipeline.labelled.assemble import LabelRows, assemble
from wsi_pipeline.labelled.cover import Cell, covered_cells
from wsi_pipeline.labelled.faults import Faults
from wsi_pipeline.labelled.patches import LabelledPatches, Rows
from wsi_pipeline.labelled.regions import Annotation, area_of, class_areas, union
from wsi_pipeline.labelled.slidegroups import slide_groups, slide_splits
from wsi_pipeline.labelled.slidepatches import CutFromSlide, PatchesOfSlides
from wsi_pipeline.slides.base import Slide
from wsi_pipeline.slides.identity import quick_digest
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.spacing import spacing_of
from wsi_pipeline.slides.thumbnail import read_whole
from wsi_pipeline.specs import LabelSpec, SegmentSpec, TileSpec
from wsi_pipeline.tiling.grid import lay_patches
from wsi_pipeline.tiling.resolve import PatchGeometry, resolve_geometry
from wsi_pipeline.tissue.segment import segment_tissue

_SLACK = 1e-9
_TWICE, _EMPTY = "patches in two classes, left out", "annotated slides that gave no patch"
_ONE_CLASS = "Annotate another class, or name the tissue outside all regions with --rest-class"


@dataclass(frozen=True, eq=False)
class SlideCut:
    """Labelled patches of one slide: coords int64 (N, 2) in level-0 pixels, row by row, and N class names.

    both    patches left out because two classes reach `min_inside` there
    """

    geometry: PatchGeometry
    coords: Rows
    labels: tuple[str, ...]
    both: int = 0


def open_annotated(cohort: Cohort, spec: LabelSpec, default_mpp: float | None = None) -> LabelledPatches:
    """Labelled patches from every slide of a cohort that has an annotation; groups are patients.

    default_mpp   micrometres per level-0 pixel of slides that state none

    Raises LabelError where no slide can be used or fewer than two classes are there.
    """
    faults, rows, seen = Faults(cohort.source), LabelRows(), Counter[str]()
    parts: list[CutFromSlide] = []
    used: list[SlideRecord] = []
    part_of: list[int] = []
    for record in cohort.records:
        if record.annotation is None:
            seen["slides without annotation, not used"] += 1
            continue
        try:
            annotation = read_annotation(record.annotation)
            part, cut = _cut_slide(record, annotation, spec, default_mpp)
        except (WsiPipelineError, OSError) as error:
            faults.add(record.slide_id, error.what if isinstance(error, WsiPipelineError) else str(error))
            continue
        seen.update(annotation.left_out)
        seen.update({_TWICE: cut.both, _EMPTY: not len(cut.coords)})
        part_of += [len(parts)] * len(cut.coords)
        parts.append(part)
        used.append(record)
        for (x, y), label in zip(cut.coords.tolist(), cut.labels, strict=True):
            rows.add(f"{record.slide_id} ({x}, {y})", label, "")
    rows.notes += faults.notes("annotated slides", len(parts))
    rows.notes += [f"{what}: {count}" for what, count in seen.items() if count]
    owners = np.array(part_of, np.int64)
    groups, splits = slide_groups(used, spec, rows.notes), slide_splits(used)
    rows.groups = [groups[k] for k in part_of]
    rows.splits = None if splits is None else [splits[k] for k in part_of]
    patch_of = np.concatenate([np.arange(len(part.coords), dtype=np.int64) for part in parts])
    key = {"mpp": spec.mpp, "geometry": [asdict(part.geometry) for part in parts], "rows": _row_key(parts)}
    pixels = PatchesOfSlides(tuple(parts), owners, patch_of, spec.patch_px, spec.mpp, key)
    return assemble(rows, pixels, cohort.source, spec, todo=None if spec.rest_class else _ONE_CLASS)


def cut_patches(slide: Slide, slide_mpp: float, annotation: Annotation, spec: LabelSpec) -> SlideCut:
    """Which patches of the slide's grid have a class.

    slide_mpp   micrometres per level-0 pixel

    A patch has the class whose area covers at least `min_inside` of it; where two classes do, it has none. With
    `rest_class`, patches that touch no annotated area and are tissue to at least `min_inside` have that class.
    """
    geometry = resolve_geometry(_tile_spec(spec), slide.info, slide_mpp)
    size, patch, stride = slide.info.size, geometry.patch_level0, geometry.stride_level0
    areas = class_areas(annotation.regions, size)
    labels: dict[Cell, str] = {}
    twice: set[Cell] = set()
    for name, area in areas.items():
        for cell, part in covered_cells(area, size, patch, stride).items():
            if part >= spec.min_inside - _SLACK:
                twice |= {cell} & labels.keys()
                labels[cell] = name
    labels = {cell: name for cell, name in labels.items() if cell not in twice}
    if spec.rest_class:
        marked = union([*areas.values(), area_of(annotation.others, size)])
        labels |= dict.fromkeys(_rest(slide, slide_mpp, geometry, marked, spec), spec.rest_class)
    cells = sorted(labels, key=lambda cell: (cell[1], cell[0]))
    coords = np.array(cells, np.int64).reshape(-1, 2) * stride
    return SlideCut(geometry, coords, tuple(labels[cell] for cell in cells), len(twice))


def _rest(
    slide: Slide, slide_mpp: float, geometry: PatchGeometry, marked: BaseGeometry, spec: LabelSpec
) -> Iterable[Cell]:
    """Patches of tissue that touch nothing annotated."""
    size, stride = slide.info.size, geometry.stride_level0
    tissue = SegmentSpec()
    picture = read_whole(slide, slide_mpp, max(slide_mpp, tissue.mask_mpp))
    mask = segment_tissue(picture, size, slide_mpp, tissue).mask
    grid = lay_patches(mask, geometry.patch_level0, stride, spec.min_inside)
    touched = covered_cells(marked, size, geometry.patch_level0, stride)
    for x, y in (grid.coords // stride).tolist():
        if (x, y) not in touched:
            yield x, y


def _cut_slide(
    record: SlideRecord, annotation: Annotation, spec: LabelSpec, default_mpp: float | None
) -> tuple[CutFromSlide, SlideCut]:
    with open_slide(record.path) as slide:
        mpp = spacing_of(slide.info, record.mpp, default_mpp).mpp
        cut = cut_patches(slide, mpp, annotation, spec)
    digest = quick_digest(record.path)
    return CutFromSlide(record.slide_id, digest, record.path, cut.coords, cut.geometry), cut


def _tile_spec(spec: LabelSpec) -> TileSpec:
    return TileSpec(
        patch_px=spec.patch_px,
        mpp=spec.mpp,
        overlap_px=spec.overlap_px,
        mpp_tolerance=spec.mpp_tolerance,
        allow_upsample=spec.allow_upsample,
    )


def _row_key(parts: list[CutFromSlide]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.coords.tobytes() + b"\0")
    return whole.hexdigest()


def is_annotated(cohort: Cohort) -> bool:
    """Whether any slide of a cohort has an annotation."""
    return any(record.annotation is not None for record in cohort.records)
