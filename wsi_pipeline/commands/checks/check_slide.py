"""One slide before a run: its facts, whether it can be tiled, and the estimated cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.commands.checks.quality_note import quality_note
from wsi_pipeline.config.specs import LabelSpec, SegmentSpec, TileSpec
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.labelled.sources.annotated_slides import bare_note, cut_annotated
from wsi_pipeline.labelled.sources.annotation_files import read_annotation
from wsi_pipeline.reading.patch_reader import encode_jpeg
from wsi_pipeline.slides.inspect.preflight import FileFacts, Look, file_facts, look
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide, SlideInfo
from wsi_pipeline.slides.spacing import Spacing, spacing_of
from wsi_pipeline.slides.thumbnail import best_level, read_whole
from wsi_pipeline.stages.engine.runner import failure
from wsi_pipeline.tiling.grid import lay_grid
from wsi_pipeline.tiling.resolve import PatchGeometry, resolve_geometry
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.tissue.own.given import given_tissue

MAX_SAMPLE_PX = 1024
"""Maximum side of a sampled region, however large the patches are."""

SEGMENT_SECONDS = 1.0
"""Tissue detection, outlines, pictures and stores of a slide: 0.5 to 1.5 s of one core on seven real slides."""
SEGMENT_BYTES = 1_600_000
"""Mask, thumbnail, overlay and outlines of a slide: the mean of seven real slides."""
PATCH_BYTES = 20
"""Coordinates and coverage of a patch, before compression."""


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a slide: patches, seconds of one process, bytes of its stores without features.

    tile_seconds   for `tile`
    read_seconds   to read all patches once, for `embed`
    """

    patches: int
    tile_seconds: float
    read_seconds: float
    store_bytes: int


@dataclass(frozen=True)
class SlideCheck:
    """The result of checking a slide; `info`, `spacing` and `cost` are None if the check failed before it got there.

    failure   why it cannot be tiled, or an empty string
    note      oddities that do not prevent tiling
    copy_of   slide_id of an earlier slide with the same content, or an empty string
    """

    slide_id: str
    file: FileFacts | None = None
    info: SlideInfo | None = None
    spacing: Spacing | None = None
    cost: Cost | None = None
    failure: str = ""
    todo: str = ""
    note: str = ""
    copy_of: str = ""

    @property
    def needs_attention(self) -> bool:
        """Whether the user should act before a run."""
        return bool(self.failure or self.copy_of)


def check_slide(record: SlideRecord, spec: TileSpec, default_mpp: float | None, no_crop: bool = False) -> SlideCheck:
    """Open one slide and sample regions of it. Never raises for a fault of the slide; the result reports it.

    no_crop   coordinates of QuPath annotations start at the corner of the whole slide, not of its bounds
    """
    found = SlideCheck(record.slide_id)
    try:
        found = replace(found, file=file_facts(record.path))
        with open_slide(record.path) as slide:
            found = replace(found, info=slide.info)
            spacing = spacing_of(slide.info, record.mpp, default_mpp)
            found = replace(found, spacing=spacing, note=_joined(*slide.info.notes, spacing.note))
            geometry = resolve_geometry(spec, slide.info, spacing.mpp)
            seen = look(slide, geometry.level, min(geometry.level_px, MAX_SAMPLE_PX))
            found = replace(found, cost=_cost(seen, slide, spec, geometry, spacing))
            if spec.quality != "none":
                found = replace(found, note=_joined(found.note, quality_note(seen, slide, geometry, spacing)))
            found = replace(found, note=_joined(found.note, _tissue_note(slide, record, spacing, no_crop)))
            return replace(found, note=_joined(found.note, _annotation_note(slide, record, spacing, no_crop)))
    except (WsiPipelineError, OSError, MemoryError) as error:
        status = failure(error)
        return replace(found, failure=status.reason, todo=status.todo)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _tissue_note(slide: Slide, record: SlideRecord, spacing: Spacing, no_crop: bool) -> str:
    """Oddities of the slide's own tissue file; raises SlideError if `segment` would refuse it."""
    if record.tissue is None:
        return ""
    mpp, mask_mpp = float(spacing.mpp), SegmentSpec().mask_mpp
    picture = read_whole(slide, mpp, max(mpp, mask_mpp))
    own = record.tissue_mpp
    return given_tissue(record.tissue, slide.info, mpp, mask_mpp, picture, no_crop=no_crop, own_mpp=own).warning


def _annotation_note(slide: Slide, record: SlideRecord, spacing: Spacing, no_crop: bool) -> str:
    """Oddities of the slide's annotation: unreadable, outside the slide, or on bare glass."""
    if record.annotation is None:
        return ""
    try:
        annotation = read_annotation(record.annotation)
        cut = cut_annotated(slide, annotation, LabelSpec(allow_upsample=True), float(spacing.mpp), no_crop)
    except WsiPipelineError as error:
        return error.what
    if not len(cut.coords) and annotation.regions:
        return "its annotation covers no patch of the slide"
    return "; ".join(bare_note({record.slide_id: (cut.bare, len(cut.coords))}))


def _cost(seen: Look, slide: Slide, spec: TileSpec, geometry: PatchGeometry, spacing: Spacing) -> Cost:
    patches = _patches(seen, slide.info, spec, geometry, float(spacing.mpp))
    read_seconds = patches * geometry.level_px**2 / seen.pixels_per_second
    overview = slide.info.levels[best_level(slide.info.levels, SegmentSpec().mask_mpp / spacing.mpp)].size
    tile_seconds = SEGMENT_SECONDS + overview.pixels / seen.pixels_per_second
    pixel_bytes = _pixel_bytes(seen, spec)
    if pixel_bytes:
        tile_seconds += read_seconds
    return Cost(patches, tile_seconds, read_seconds, SEGMENT_BYTES + patches * (PATCH_BYTES + pixel_bytes))


def _patches(seen: Look, info: SlideInfo, spec: TileSpec, geometry: PatchGeometry, mpp: float) -> int:
    if seen.tissue is not None:
        mask = TissueMask(seen.tissue, info.size, mpp)
        return len(lay_grid(mask, geometry.patch_level0, geometry.stride_level0, spec.min_coverage))
    return int(seen.fraction * info.size.pixels / geometry.stride_level0**2)


def _pixel_bytes(seen: Look, spec: TileSpec) -> int:
    """Bytes that `--pixels` stores per patch, measured on the region with most tissue."""
    if spec.pixels == "raw":
        return 3 * spec.patch_px**2
    if spec.pixels == "jpeg":
        side = min(spec.patch_px, *seen.sample.shape[:2])
        patch = area_resize(seen.sample, Size(side, side))
        return int(len(encode_jpeg(patch, spec.jpeg_quality)) * (spec.patch_px / side) ** 2)
    return 0
