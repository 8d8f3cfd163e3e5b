"""Stage `tile`: lay patches over tissue and write one patch store per slide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, require_store
from wsi_pipeline.cohort.slide_status import StageStatus, State
from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.reading.jpegs import read_jpegs
from wsi_pipeline.reading.patch_reader import PatchReader, SlidePatches
from wsi_pipeline.report.maps.overlays import write_overlay
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.stages.engine.freshness import REVISIONS, read_header, stale, tile_digest
from wsi_pipeline.stages.engine.guards import check_unchanged, drop_other_format
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.store.schema import PATCH_FORMAT, SEGMENT_FORMAT, Header
from wsi_pipeline.store.tables.patch_table import write_patches
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
        """Up to date if the patch store's digest matches the settings and the tissue mask."""
        path = self.run_dir.patch_store(record.slide_id, self.store)
        header = read_header(path, PATCH_FORMAT)
        segment = read_header(self._segment_path(record), SEGMENT_FORMAT)
        if header and segment and header.digest == tile_digest(self.spec, segment.digest):
            drawn = self.run_dir.overlay(record.slide_id).is_file()
            return Freshness(True, status=_status(header)) if drawn else Freshness(False, "its overlay is missing")
        return stale(path, header, {"tile": asdict(self.spec)})

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Tile one slide; the patch store is written last."""
        segment = read_segment_table(self._segment_path(record))
        opened = slide.open(segment.header.slide)
        geometry = resolve_geometry(self.spec, opened.info, segment.header.slide.mpp)
        grid = lay_grid(segment.mask, geometry.patch_level0, geometry.stride_level0, self.spec.min_coverage)
        header = self._header(segment, geometry, grid)
        overlay = self.run_dir.overlay(record.slide_id)
        write_overlay(overlay, segment.thumbnail, segment.mask, grid.coords, geometry.patch_level0)
        path = self.run_dir.patch_store(record.slide_id, self.store)
        pixels = self._pixels(opened, grid, geometry)
        # Checked after the last pixel has been read, before the store is moved into place.
        check = partial(check_unchanged, record.path, header.slide)
        write_patches(path, header, geometry, grid, **{key: _then(items, check) for key, items in pixels.items()})
        drop_other_format(path)
        return _status(header)

    def _segment_path(self, record: SlideRecord) -> Any:
        return require_store(self.run_dir.segment_store(record.slide_id), "tile slides.csv")

    def _header(self, segment: SegmentTable, geometry: PatchGeometry, grid: PatchGrid) -> Header:
        warning = segment.warning
        if len(grid) == 0 and segment.mask.pixels.any():
            warning = f"tissue found, but no patch is {self.spec.min_coverage:.0%} tissue: see --min-coverage"
        return Header(
            PATCH_FORMAT,
            digest=tile_digest(self.spec, segment.header.digest),
            parent_digest=segment.header.digest,
            slide=segment.header.slide,
            specs={**segment.header.specs, "tile": asdict(self.spec)},
            extra={
                "revision": REVISIONS["tile"],
                "warning": warning,
                "patches": len(grid),
                "tissue_mm2": segment.header.extra["tissue_mm2"],
                "mpp": geometry.mpp,
                "resampled": geometry.resampled,
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
    state: State = "done" if extra["patches"] else "empty"
    return StageStatus(state, note=str(extra.get("warning", "")), digest=header.digest, summary=summary)
