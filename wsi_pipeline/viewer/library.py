"""The slides that the viewer shows, of a run or without one; they are addressed by id, never by path."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.cohort.manifest import read_cohort
from wsi_pipeline.cohort.records import Cohort, SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.errors import SlideError, UsageError, WsiPipelineError
from wsi_pipeline.files.addresses import address_name, is_address
from wsi_pipeline.geometry import Box
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.slides.inspect.identity import STAT_BYTES
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.results.finished import METRICS
from wsi_pipeline.stages.results.trainings import NAME as TRAININGS
from wsi_pipeline.stages.results.trainings import PREDICTIONS
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import SEGMENT_FORMAT, THUMBNAIL, Header
from wsi_pipeline.viewer.deep_zoom import JPEG, DeepZoom, Tile, jpeg_of
from wsi_pipeline.viewer.slide_pool import ByteCache, SlidePool

MOST_REGION_PX = 1024
"""Longest side of a region that is asked for as one picture."""
_LARGE_COARSEST = 4096
"""A coarsest level longer than this is not shrunk for an overview: the stored thumbnail serves."""


class Library:
    """The slides shown. `run` is None for slides without a run, which have no layers or marks."""

    def __init__(self, cohort: Cohort, run: RunDir | None = None, name: str = "") -> None:
        self.cohort, self.run = cohort, run
        self.name = name or (run.root.resolve().name if run else "slides")
        self.records: dict[str, SlideRecord] = {record.slide_id: record for record in cohort.records}
        self.pool = SlidePool(self._open)
        self.cache = ByteCache()
        self._versions: dict[Path, str] = {}

    @classmethod
    def of_run(cls, run: RunDir) -> Library:
        """The slides of a run. Raises UsageError if there is none."""
        run = RunDir.existing(run.root)
        return cls(read_cohort([run.cohort_csv], mixed_labels=True), run)

    @classmethod
    def of_files(cls, paths: Sequence[Path]) -> Library:
        """Slides without a run, named after their files."""
        cohort = read_cohort([str(path) for path in paths])
        return cls(cohort)

    @property
    def needed_run(self) -> RunDir:
        """The run. Raises UsageError for slides without one."""
        if self.run is None:
            raise UsageError("these slides belong to no run", todo="Start one with: wsi-pipeline tile slides.csv")
        return self.run

    def record(self, slide_id: str) -> SlideRecord:
        """The record of one slide. Raises UsageError for an id that is not in the cohort."""
        found = self.records.get(slide_id)
        if found is None:
            raise UsageError(f"no slide {slide_id[:80]!r} in {self.name}")
        return found

    def trainings(self) -> list[Path]:
        """Folders of the finished trainings, by name; their files are not read."""
        if self.run is None:
            return []
        found = sorted((self.run.root / TRAININGS).glob(f"*/*/{METRICS}"))
        return [path.parent for path in found if (path.parent / PREDICTIONS).is_file()]

    def tile(self, slide_id: str, level: int, column: int, row: int) -> Tile:
        """One tile; tiles that had to be encoded are cached. Raises UsageError, SlideError."""
        self.record(slide_id)
        with self.pool.use(slide_id) as zoom:
            found = zoom.stored_tile(level, column, row)
            if found is not None:
                return found
            kept = self.cache.get((slide_id, level, column, row), lambda: zoom.tile(level, column, row))
            return Tile(*kept)

    def tile_at_once(self, slide_id: str, level: int, column: int, row: int) -> Tile | None:
        """The tile if nothing has to be opened, decoded or read from a disk; else None. Raises SlideError."""
        kept = self.cache.known((slide_id, level, column, row))
        if kept is not None:
            return Tile(*kept)
        with self.pool.use_if_open(slide_id) as zoom:
            return zoom.stored_tile(level, column, row, at_once=True) if zoom is not None else None

    def thumbnail(self, slide_id: str, px: int) -> Tile:
        """The whole slide, longer side at most `px` pixels, from its segment store, else from its coarsest level."""
        self.record(slide_id)
        px = min(max(px, 32), 1200)
        return Tile(*self.cache.get((slide_id, "thumbnail", px), lambda: self._thumbnail(slide_id, px)))

    def region(self, slide_id: str, box: Box, px: int) -> Tile:
        """A box of level 0 as one picture of at most `px` pixels."""
        self.record(slide_id)
        px = min(max(px, 16), MOST_REGION_PX)
        with self.pool.use(slide_id) as zoom:
            size = zoom.slide.info.size
            if box.width < 1 or box.height < 1 or box.clipped(size) is None or max(box.width, box.height) > 1 << 15:
                raise UsageError("that region is not on the slide, or is larger than 32768 pixels")
            make = lambda: (jpeg_of(zoom.region(box, px)), JPEG)  # noqa: E731
            return Tile(*self.cache.get((slide_id, box, px), make))

    def facts(self, slide_id: str) -> dict[str, Any]:
        """Everything the page needs to show a slide: size, mpp, levels with their tiles, and metadata."""
        record, header = self.record(slide_id), self.segment_header(slide_id)
        with self.pool.use(slide_id) as zoom:
            info, levels = zoom.slide.info, zoom.levels
        mpp = (header.slide.mpp if header else None) or record.mpp or info.mpp
        return {
            "id": slide_id, "width": info.size.width, "height": info.size.height, "mpp": mpp,
            "objective": info.objective, "vendor": info.vendor, "file": address_name(record.path),
            "patient": record.patient_id, "label": record.label, "site": record.site, "version": self.version(slide_id),
            "levels": [
                {"width": level.size.width, "height": level.size.height, "tile_width": level.tile.width,
                 "tile_height": level.tile.height, "stored": level.stored}
                for level in levels
            ],
        }  # fmt: skip

    def version(self, slide_id: str) -> str:
        """A version that changes with the file, so that browsers can cache tiles indefinitely."""
        path = self.record(slide_id).path
        if is_address(path):
            return self._remote_version(path)
        try:
            found = path.stat()
        except OSError:
            return "0"
        return hashlib.sha256(f"{found.st_mtime_ns} {found.st_size}".encode()).hexdigest()[:10]

    def _remote_version(self, path: Path) -> str:
        """By size and tag, asked for once: a slide that changes while it is shown is refused by its reader."""
        if path not in self._versions:
            try:
                with closing(RemoteFile(path, head=STAT_BYTES)) as file:
                    self._versions[path] = hashlib.sha256(f"{file.tag} {file.size}".encode()).hexdigest()[:10]
            except SlideError:
                return "0"
        return self._versions[path]

    def segment_header(self, slide_id: str) -> Header | None:
        """Header of a slide's segment store; None if there is none."""
        path = existing_store(self.run.segment_store(slide_id)) if self.run else None
        return read_header(path, SEGMENT_FORMAT) if path else None

    def associated(self, slide_id: str) -> list[str]:
        """Names of the label, macro and other associated images. Their pixels are not read."""
        with self._openslide(slide_id) as slide:
            return sorted(slide.associated_images)

    def associated_image(self, slide_id: str, name: str) -> Tile:
        """One associated image. Raises UsageError for an unknown name."""
        with self._openslide(slide_id) as slide:
            if name not in slide.associated_images:
                raise UsageError(f"no picture {name[:40]!r} in {slide_id}")
            image = slide.associated_images[name].convert("RGB")
        image.thumbnail((1600, 1600))
        return Tile(jpeg_of(np.asarray(image)), JPEG)

    def close(self) -> None:
        """Close all slides."""
        self.pool.close()

    def _openslide(self, slide_id: str) -> openslide.OpenSlide:
        path = self.record(slide_id).path
        if is_address(path):
            raise SlideError(f"{slide_id} lies at an address, of which only the slide itself is read")
        try:
            return openslide.OpenSlide(str(path))
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(f"{slide_id} has no pictures that OpenSlide reads ({error})") from None

    def _open(self, slide_id: str) -> DeepZoom:
        record = self.record(slide_id)
        slide = open_slide(record.path)
        coarsest = slide.info.levels[-1].size
        overview = None
        if max(coarsest.width, coarsest.height) > _LARGE_COARSEST:
            overview = self._stored_thumbnail(slide_id)
        return DeepZoom(slide, overview)

    def _thumbnail(self, slide_id: str, px: int) -> tuple[bytes, str]:
        picture = self._stored_thumbnail(slide_id, px)
        if picture is None:
            with self.pool.use(slide_id) as zoom:
                size = zoom.slide.info.size
                picture = zoom.region(Box(0, 0, size.width, size.height), px)
        image = Image.fromarray(picture)
        image.thumbnail((px, px), Image.Resampling.BOX)
        return jpeg_of(np.asarray(image)), JPEG

    def _stored_thumbnail(self, slide_id: str, px: int = 0) -> NDArray[np.uint8] | None:
        """The segment store's thumbnail, decoded at reduced size, if possible at least `px` long; None without one."""
        path = existing_store(self.run.segment_store(slide_id)) if self.run else None
        if path is None:
            return None
        try:
            with open_store(path) as store:
                data = store.read(THUMBNAIL).tobytes()
            found: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=px, min_width=px)
        except (WsiPipelineError, ValueError, OSError):
            return None
        return found

    @cached_property
    def patients(self) -> dict[str, str]:
        """slide_id -> patient_id."""
        return {slide_id: record.patient_id for slide_id, record in self.records.items()}


def one_slide(path: Path, mpp: float | None = None) -> Library:
    """A library of one slide without a run."""
    library = Library.of_files([path])
    if mpp is not None:
        library.records = {key: replace(record, mpp=mpp) for key, record in library.records.items()}
    return library
