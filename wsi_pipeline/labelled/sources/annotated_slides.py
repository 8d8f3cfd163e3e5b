"""Labels from slides with annotations: patches on the grid of `tile`, at the exact resolution."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import shapely

from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.config.specs import LabelSpec, SegmentSpec, TileSpec
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.labelled.assemble import LabelRows, assemble
from wsi_pipeline.labelled.faults import Faults
from wsi_pipeline.labelled.labelled_patches import LabelledPatches, Rows
from wsi_pipeline.labelled.slide_patches import PatchesOfSlides
from wsi_pipeline.labelled.sources.annotation_files import read_annotation
from wsi_pipeline.labelled.sources.cover import Cell, covered_cells
from wsi_pipeline.labelled.sources.regions import Annotation, area_of, class_areas, union
from wsi_pipeline.labelled.splits.patch_groups import slide_groups, slide_splits
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.slides.inspect.identity import quick_digest
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.slide_info import check_upright
from wsi_pipeline.slides.spacing import spacing_of
from wsi_pipeline.slides.thumbnail import read_whole
from wsi_pipeline.tiling.grid import lay_grid
from wsi_pipeline.tiling.resolve import PatchGeometry, resolve_geometry
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.tissue.segmentation import segment_tissue
from wsi_pipeline.wording import counted, listed

_SLACK = 1e-9
_SOME_TISSUE = 0.01
"""A patch with less tissue than this counts as bare."""
_WORTH_A_NOTE = 0.05
"""Fraction of bare labelled patches worth a note: outlines have a margin, and detectors miss pale tissue."""
_TWICE, _EMPTY = "patches in two classes, left out", "annotated slides that gave no patch"
_ONE_CLASS = "Annotate another class, or name the tissue outside all regions with --rest-class"


@dataclass(frozen=True, eq=False)
class SlideCut:
    """Labelled patches of one slide: coords int64 (N, 2) in level-0 pixels, row by row, and N class names.

    both    patches left out because two classes reach `min_inside` there
    bare    labelled patches without any tissue
    """

    geometry: PatchGeometry
    coords: Rows
    labels: tuple[str, ...]
    both: int = 0
    bare: int = 0


def open_annotated(
    cohort: Cohort, spec: LabelSpec, default_mpp: float | None = None, no_crop: bool = False
) -> LabelledPatches:
    """Labelled patches from every slide of a cohort that has an annotation; groups are patients.

    default_mpp   micrometres per level-0 pixel of slides that state none
    no_crop       QuPath counted from the corner of the whole slide, not of its bounds

    Raises LabelError if no slide can be used or there are fewer than two classes.
    """
    faults, rows, seen = Faults(cohort.source), LabelRows(), Counter[str]()
    parts: list[PatchFiles] = []
    used: list[SlideRecord] = []
    part_of: list[int] = []
    bare: dict[str, tuple[int, int]] = {}
    for record in cohort.records:
        if record.annotation is None:
            seen["slides without annotation, not used"] += 1
            continue
        try:
            annotation = read_annotation(record.annotation)
            part, cut = _cut_slide(record, annotation, spec, default_mpp, no_crop)
        except (WsiPipelineError, OSError) as error:
            faults.add(record.slide_id, error.what if isinstance(error, WsiPipelineError) else str(error))
            continue
        seen.update(annotation.left_out)
        seen.update({_TWICE: cut.both, _EMPTY: not len(cut.coords)})
        bare[record.slide_id] = cut.bare, len(cut.coords)
        part_of += [len(parts)] * len(cut.coords)
        parts.append(part)
        used.append(record)
        for (x, y), label in zip(cut.coords.tolist(), cut.labels, strict=True):
            rows.add(f"{record.slide_id} ({x}, {y})", label, "")
    rows.notes += faults.notes("annotated slides", len(parts))
    rows.notes += [f"{what}: {count}" for what, count in seen.items() if count]
    rows.notes += bare_note(bare)
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

    A patch has the class whose area covers at least `min_inside` of it; if two classes do, it has none. With
    `rest_class`, patches that touch no annotated area and are tissue to at least `min_inside` have that class.
    """
    geometry = resolve_geometry(_tile_spec(spec), slide.info, slide_mpp)
    size, patch, stride = slide.info.size, geometry.patch_level0, geometry.stride_level0
    ignored = area_of(annotation.ignored, size)
    areas = {name: shapely.difference(area, ignored) for name, area in class_areas(annotation.regions, size).items()}
    labels: dict[Cell, str] = {}
    twice: set[Cell] = set()
    for name, area in areas.items():
        for cell, part in covered_cells(area, size, patch, stride).items():
            if part >= spec.min_inside - _SLACK:
                twice |= {cell} & labels.keys()
                labels[cell] = name
    labels = {cell: name for cell, name in labels.items() if cell not in twice}
    if not labels and not spec.rest_class:
        return SlideCut(geometry, np.zeros((0, 2), np.int64), (), len(twice))
    mask = _tissue(slide, slide_mpp)
    bare = len(labels.keys() - _with_tissue(mask, patch, stride, _SOME_TISSUE))
    if spec.rest_class:
        touched = covered_cells(union([*areas.values(), area_of(annotation.others, size)]), size, patch, stride)
        rest = _with_tissue(mask, patch, stride, spec.min_inside) - touched.keys()
        labels |= dict.fromkeys(rest, spec.rest_class)
    cells = sorted(labels, key=lambda cell: (cell[1], cell[0]))
    coords = np.array(cells, np.int64).reshape(-1, 2) * stride
    return SlideCut(geometry, coords, tuple(labels[cell] for cell in cells), len(twice), bare)


def bare_note(found: Mapping[str, tuple[int, int]]) -> list[str]:
    """A note if labelled patches hold no tissue; `found` is slide_id -> (bare patches, labelled patches)."""
    bare, patches = (sum(counts[k] for counts in found.values()) for k in (0, 1))
    if bare < _WORTH_A_NOTE * patches or not bare:
        return []
    slides = sorted((slide for slide, (count, _) in found.items() if count), key=lambda slide: -found[slide][0])
    return [
        f"{bare:,} of {counted(patches, 'labelled patch')} hold no tissue ({listed(slides, 3)}): unless a class "
        "means bare glass, the annotations belong to another file, resolution or origin (see --qupath-no-crop)"
    ]


def _with_tissue(mask: TissueMask, patch: int, stride: int, least: float) -> set[Cell]:
    """Patches of the grid that are tissue to at least this part."""
    corners = lay_grid(mask, patch, stride, least).coords // stride
    return {(x, y) for x, y in corners.tolist()}


def _tissue(slide: Slide, slide_mpp: float) -> TissueMask:
    spec = SegmentSpec()
    picture = read_whole(slide, slide_mpp, max(slide_mpp, spec.mask_mpp))
    return segment_tissue(picture, slide.info.size, slide_mpp, spec).mask


def cut_annotated(slide: Slide, annotation: Annotation, spec: LabelSpec, mpp: float, no_crop: bool) -> SlideCut:
    """`cut_patches`, after shifting outlines that count from the slide's bounds to level-0 coordinates."""
    check_upright(slide.info, "annotation")
    origin = slide.info.origin if annotation.from_bounds and not no_crop else (0, 0)
    return cut_patches(slide, mpp, annotation.moved(*origin), spec)


def _cut_slide(
    record: SlideRecord, annotation: Annotation, spec: LabelSpec, default_mpp: float | None, no_crop: bool
) -> tuple[PatchFiles, SlideCut]:
    with open_slide(record.path) as slide:
        mpp = spacing_of(slide.info, record.mpp, default_mpp).mpp
        cut = cut_annotated(slide, annotation, spec, mpp, no_crop)
    digest = quick_digest(record.path)
    return PatchFiles(record.slide_id, digest, record.path, cut.coords, cut.geometry), cut


def _tile_spec(spec: LabelSpec) -> TileSpec:
    return TileSpec(
        patch_px=spec.patch_px,
        mpp=spec.mpp,
        overlap_px=spec.overlap_px,
        mpp_tolerance=spec.mpp_tolerance,
        allow_upsample=spec.allow_upsample,
    )


def _row_key(parts: list[PatchFiles]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.coords.tobytes() + b"\0")
    return whole.hexdigest()


def is_annotated(cohort: Cohort) -> bool:
    """Whether any slide of a cohort has an annotation."""
    return any(record.annotation is not None for record in cohort.records)
