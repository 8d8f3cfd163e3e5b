"""Stage `tile`: lay patches over tissue and write one patch store per slide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, require_store
from wsi_pipeline.cohort.slide_status import StageStatus, State
from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.quality.measures import REVISION as QUALITY_REVISION
from wsi_pipeline.reading.jpegs import read_jpegs
from wsi_pipeline.reading.patch_reader import PatchReader, SlidePatches
from wsi_pipeline.report.maps.overlays import write_overlay
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.stages.engine.freshness import REVISIONS, quality_digest, read_header, stale, tile_digest
from wsi_pipeline.stages.engine.guards import check_unchanged, drop_other_format
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.stages.engine.slide_quality import (
    MASK_MPP,
    SlideQuality,
    drop_artefacts,
    dropped_words,
    measure_slide,
)
from wsi_pipeline.store.schema import PATCH_FORMAT, QUALITY, SEGMENT_FORMAT, Header
from wsi_pipeline.store.tables.patch_table import read_patch_table, write_patches
from wsi_pipeline.store.tables.quality_columns import FlaggedPatches, amend_quality
from wsi_pipeline.store.tables.segment_table import SegmentTable, read_segment_table
from wsi_pipeline.tiling.grid import PatchGrid, lay_grid
from wsi_pipeline.tiling.resolve import PatchGeometry, resolve_geometry

T = TypeVar("T")
_PIXEL_BATCH = 64
_READ_THREADS = 2


@dataclass(frozen=True)
class TileStage:
    """Lays patches over the tissue of slides; `store` is hdf5 or zarr."""

    run_dir: RunDir
    spec: TileSpec
    store: str = "hdf5"
    name: str = "tile"

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the digests of patches and quality match the settings and the tissue mask."""
        path = self.run_dir.patch_store(record.slide_id, self.store)
        header = read_header(path, PATCH_FORMAT)
        segment = read_header(self._segment_path(record), SEGMENT_FORMAT)
        if header and segment and header.digest == tile_digest(self.spec, segment.digest):
            if not self.run_dir.overlay(record.slide_id).is_file():
                return Freshness(False, "its overlay is missing")
            why = self._quality_missing(header)
            # The quality of a slide that has since been archived cannot be measured; its patches are valid.
            if why and record.path.exists():
                return Freshness(False, why)
            return Freshness(True, status=_status(header))
        return stale(path, header, {"tile": self.spec.facts()})

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Tile one slide; the patch store is written last."""
        segment = read_segment_table(self._segment_path(record))
        opened = slide.open(segment.header.slide)
        path = self.run_dir.patch_store(record.slide_id, self.store)
        known = read_header(path, PATCH_FORMAT)
        digest = tile_digest(self.spec, segment.header.digest)
        if known and known.digest == digest and self._quality_missing(known):
            return self._measure_again(record, slide, segment, path)
        geometry = resolve_geometry(self.spec, opened.info, segment.header.slide.mpp)
        laid = grid = lay_grid(segment.mask, geometry.patch_level0, geometry.stride_level0, self.spec.min_coverage)
        quality = self._quality(slide, segment, SlidePatches(opened, grid.coords, geometry))
        dropped = None
        if self.spec.drop_artefacts and quality is not None:
            grid, quality, dropped = drop_artefacts(grid, quality)
        header = self._header(segment, geometry, grid, quality)
        if dropped is not None:
            header.extra.update(dropped=dropped.counts(), laid=len(laid))
        columns = quality.columns if quality else None
        flagged = FlaggedPatches.among(grid.coords, geometry, columns, dropped)
        self._write_overlay(segment, grid, geometry, flagged)
        pixels = self._pixels(opened, grid, geometry)
        # Checked after the last pixel has been read, before the store is moved into place.
        check = partial(check_unchanged, record.path, header.slide)
        if quality is not None and not pixels:
            check()
        kept = {key: _then(items, check) for key, items in pixels.items()}
        write_patches(path, header, geometry, grid, **kept, quality=columns, dropped=dropped)
        drop_other_format(path)
        return _status(header)

    def _measure_again(self, record: SlideRecord, slide: OpenOnce, segment: SegmentTable, path: Path) -> StageStatus:
        """Only the quality of an existing store; its patches, pixels and labels stay as they are."""
        table = read_patch_table(path)
        quality = self._quality(slide, segment, SlidePatches(slide.open(), table.grid.coords, table.geometry))
        assert quality is not None
        check_unchanged(record.path, table.header.slide)
        facts = quality.facts(self.spec.quality_of, quality_digest(self.spec.quality_of, table.header.digest))
        header = replace(table.header, extra={**table.header.extra, QUALITY: facts})
        flagged = FlaggedPatches.among(table.grid.coords, table.geometry, quality.columns, table.dropped)
        self._write_overlay(segment, table.grid, table.geometry, flagged)
        amend_quality(path, header, quality.columns)
        return _status(header)

    def _write_overlay(
        self, segment: SegmentTable, grid: PatchGrid, geometry: PatchGeometry, flagged: FlaggedPatches
    ) -> None:
        overlay = self.run_dir.overlay(segment.header.slide.slide_id)
        write_overlay(overlay, segment.thumbnail, segment.mask, grid.coords, geometry.patch_level0, flagged)

    def _quality(self, slide: OpenOnce, segment: SegmentTable, patches: SlidePatches) -> SlideQuality | None:
        if self.spec.quality_of == "none":
            return None
        picture, _ = slide.pictures(segment.header.slide.mpp, MASK_MPP)
        return measure_slide(picture, segment.mask, patches, self.spec.quality_of)

    def _quality_missing(self, header: Header) -> str:
        """Why the quality in a store is not what is asked for; "" if it is. The pixels of all patches are enough for a
        sample."""
        asked = self.spec.quality_of
        enough = {"none": ("none", "sample", "all"), "sample": ("sample", "all"), "all": ("all",)}[asked]
        known = header.extra.get(QUALITY)
        if asked == "none":
            return ""
        if not isinstance(known, dict):
            return "its quality has not been measured"
        if known.get("digest") in [quality_digest(pixels, header.digest) for pixels in enough]:
            return ""
        if known.get("revision") != QUALITY_REVISION:
            return f"measures of quality revision {known.get('revision')} -> {QUALITY_REVISION}"
        return f"quality {known.get('pixels')} -> {asked}"

    def _segment_path(self, record: SlideRecord) -> Any:
        return require_store(self.run_dir.segment_store(record.slide_id), "tile slides.csv")

    def _header(
        self, segment: SegmentTable, geometry: PatchGeometry, grid: PatchGrid, quality: SlideQuality | None
    ) -> Header:
        warning, digest = segment.warning, tile_digest(self.spec, segment.header.digest)
        if len(grid) == 0 and segment.mask.pixels.any() and not self.spec.drop_artefacts:
            warning = f"tissue found, but no patch is {self.spec.min_coverage:.0%} tissue: see --min-coverage"
        pixels = self.spec.quality_of
        return Header(
            PATCH_FORMAT,
            digest=digest,
            parent_digest=segment.header.digest,
            slide=segment.header.slide,
            specs={**segment.header.specs, "tile": self.spec.facts()},
            extra={
                "revision": REVISIONS["tile"],
                "warning": warning,
                "patches": len(grid),
                "tissue_mm2": segment.header.extra["tissue_mm2"],
                "mpp": geometry.mpp,
                "resampled": geometry.resampled,
                **({QUALITY: quality.facts(pixels, quality_digest(pixels, digest))} if quality else {}),
            },
        )

    def _pixels(self, slide: Slide, grid: PatchGrid, geometry: PatchGeometry) -> dict[str, Any]:
        patches = SlidePatches(slide, grid.coords, geometry)
        if self.spec.pixels == "raw":
            return {"images": PatchReader(patches, _PIXEL_BATCH, _READ_THREADS)}
        if self.spec.pixels == "jpeg":
            return {"jpegs": read_jpegs(patches, self.spec.jpeg_quality, _READ_THREADS)}
        return {}


def _then(items: Iterable[T], check: Callable[[], None]) -> Iterator[T]:
    try:
        yield from items
    except SlideError:
        check()  # a file that was overwritten meanwhile does not decode, but is not damaged
        raise
    check()


def _status(header: Header) -> StageStatus:
    extra, slide = header.extra, header.slide
    summary = {key: extra[key] for key in ("patches", "tissue_mm2", "mpp", "resampled")}
    summary["mpp_source"] = slide.mpp_source
    quality, dropped = extra.get(QUALITY) or {}, extra.get("dropped") or {}
    if dropped:
        summary["dropped"] = dropped
    notes = (extra.get("warning"), dropped_words(dropped, int(extra.get("laid", 0))), quality.get("note"))
    state: State = "done" if extra["patches"] else "empty"
    return StageStatus(state, note="; ".join(filter(None, notes)), digest=header.digest, summary=summary)
