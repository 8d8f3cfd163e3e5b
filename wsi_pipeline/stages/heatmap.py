"""Stage `heatmap`: each slide's attention, over a picture of it and in numbers.

heatmap/<encoder>/<mil model>/
  <slide_id>.png               attention over the slide, coloured by percentile; written last, it carries the digest
  <slide_id>.csv               x, y, attention, percentile, contribution_<class>: one row per patch, level-0 pixels
  <slide_id>.geojson           outlines of the strongest patches, for QuPath
  <slide_id>.patches.jpg       the strongest and the weakest patches
  <slide_id>.contribution.jpg  evidence for and against the class
  <slide_id>.tif               the overlay as a pyramid, for QuPath and OpenSlide (`heatmap`; not `train-mil`)

A slide that was tested in cross-validation is explained by the models that tested it, which never saw its patient;
any other slide by the mean of all fold models.

Models and figures are imported when the first slide is drawn: if all are up to date, torch is not needed.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store, require_store
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.config.fields import canonical_json, digest_of
from wsi_pipeline.config.specs import HeatmapSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.mil.trained.model_config import checked_config
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.stages.engine.freshness import REVISIONS, read_header
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.qupath_origin import origin_in_run, qupath_origin
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.stages.outputs.ground import Ground, ground_of_imported, origin_of_imported
from wsi_pipeline.stages.outputs.png_chunks import DIGEST, SETTINGS, png_chunks
from wsi_pipeline.stages.results.trainings import Training, require_training
from wsi_pipeline.store.schema import FEATURE_FORMAT, Header
from wsi_pipeline.store.tables.feature_table import FeatureTable, read_feature_table
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.system.atomic import remove
from wsi_pipeline.tissue.geojson import origin_of_file

if TYPE_CHECKING:
    from wsi_pipeline.mil.trained.checkpoint import Ensemble
    from wsi_pipeline.stages.outputs.heatmap_files import HeatmapFiles

logger = logging.getLogger(__name__)

MAX_PYRAMID_PIXELS = 1 << 25
"""Most pixels of the TIFF's finest level: reading takes about 16 bytes of memory per pixel."""


@dataclass
class HeatmapStage:
    """Draws heatmaps of slides for the model in train-mil/<encoder>/<model>.

    preload, slides_a_worker, needed   see `SlideStage`
    spec   what to draw; None: plain pictures, unless pictures of these models exist in any form
    no_crop   outline coordinates from the corner of the whole slide, for QuPath set to show it uncropped
    """

    preload: ClassVar[tuple[str, ...]] = (
        "wsi_pipeline.stages.outputs.explanation",
        "wsi_pipeline.stages.outputs.heatmap_files",
    )
    slides_a_worker: ClassVar[int] = 8
    needed: ClassVar[bool] = False

    run_dir: RunDir
    encoder: str
    model: str
    device: str = "cpu"
    spec: HeatmapSpec | None = None
    no_crop: bool = False

    @property
    def name(self) -> str:
        """`heatmap/<encoder>/<model>`."""
        return f"heatmap/{self.encoder}/{self.model}"

    @property
    def wanted(self) -> HeatmapSpec:
        """What to draw: as requested, else everything but the pyramid."""
        return self.spec or HeatmapSpec(pyramid=False)

    @cached_property
    def ensemble(self) -> Ensemble:
        """The trained fold models."""
        from wsi_pipeline.mil.trained.checkpoint import load_ensemble

        return load_ensemble(self.run_dir.mil(self.encoder, self.model))

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the ensemble, read without loading it. Raises StoreError if a file is missing or changed."""
        return checked_config(self.run_dir.mil(self.encoder, self.model))[1]

    @cached_property
    def training(self) -> Training:
        """The training, which records which fold tested which slide."""
        return require_training(self.run_dir.mil(self.encoder, self.model))

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the picture has the digest of these models and features and was drawn as requested."""
        chunks = png_chunks(self._file(record, ".png"))
        if DIGEST not in chunks:
            return Freshness(False)
        header = read_header(self._features(record), FEATURE_FORMAT)
        digest = self._digest(header, self.fingerprint)
        alike = self.spec is None or chunks.get(SETTINGS) == canonical_json(asdict(self.spec))
        whole = alike and (not self.wanted.pyramid or self._file(record, ".tif").is_file())
        if chunks.get(DIGEST) == digest and whole and self._outlines_placed(record, header):
            return Freshness(True, status=StageStatus("done", digest=digest))
        return Freshness(False)

    def _outlines_placed(self, record: SlideRecord, header: Header | None) -> bool:
        """Whether the outlines use QuPath's origin; without a `spec` any stated origin will do."""
        stated = origin_of_file(self._file(record, ".geojson"))
        segmented = existing_store(self.run_dir.segment_store(record.slide_id)) is not None
        if header is not None and "import" in header.specs and not segmented:
            wanted = origin_of_imported(header, self.no_crop)
        else:
            wanted = origin_in_run(self.run_dir, record.slide_id, self.no_crop)
        return stated == wanted or (self.spec is None and stated is not None)

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Draw one slide. If its file is gone, draw what can be drawn from the stores."""
        from wsi_pipeline.stages.outputs.explanation import explain, models_for_slide
        from wsi_pipeline.stages.outputs.heatmap_files import HeatmapFiles

        table = read_feature_table(self._features(record))
        digest = self._digest(table.header, self.ensemble.fingerprint)
        ground = self._ground(record, table, slide)
        models = models_for_slide(self.training, self.ensemble, record)
        files = HeatmapFiles(
            self._file(record, ""),
            explain(self.ensemble, models, ground.table, self.device),
            {DIGEST: digest, SETTINGS: canonical_json(asdict(self.wanted))},
            ground.origin,
            outlined=ground.outlined,
        )
        for ending in (".tif", ".patches.jpg"):
            remove(self._file(record, ending))  # never leave a picture of other models behind
        picture, note = self._from_slide(record, ground.table, files, slide) if ground.of_slide else (None, ground.note)
        files.write_overlays(ground.picture if picture is None else picture)
        return StageStatus("done" if len(table.coords) else "empty", note=note, digest=digest)

    def _ground(self, record: SlideRecord, table: FeatureTable, slide: OpenOnce) -> Ground:
        """The background: the thumbnail of `tile`; for imported features the slide, or white."""
        if "import" in table.header.specs:
            store = existing_store(self.run_dir.segment_store(record.slide_id))
            return ground_of_imported(table, read_segment_table(store) if store else None, slide, self.no_crop)
        segment = read_segment_table(require_store(self.run_dir.segment_store(record.slide_id), "tile slides.csv"))
        return Ground(table, segment.thumbnail, qupath_origin(segment.header, self.no_crop))

    def _from_slide(
        self, record: SlideRecord, table: FeatureTable, files: HeatmapFiles, slide: OpenOnce
    ) -> tuple[NDArray[np.uint8] | None, str]:
        """Write the files that need pixels. Returns the background, if it is not the thumbnail, and a note."""
        identity, wanted = table.header.slide, self.wanted

        try:
            with self._patch_files(record, table).on(lambda: slide.open(identity)) as patches:
                files.write_sheet(patches)
            if wanted.pyramid:
                coarsest = float(np.sqrt(identity.size.pixels * identity.mpp**2 / MAX_PYRAMID_PIXELS)) * 1.001
                files.write_pyramid(slide.whole(identity, max(wanted.pyramid_mpp, coarsest)))
            return None if wanted.overlay_mpp is None else slide.whole(identity, wanted.overlay_mpp), ""
        except (SlideError, OSError) as error:
            logger.warning("%s: drawn without the slide: %s", record.slide_id, error)
            return None, f"drawn without the slide: {error.what if isinstance(error, SlideError) else error.strerror}"

    def _patch_files(self, record: SlideRecord, table: FeatureTable) -> PatchFiles:
        """The files to read patches from: the store that the features were computed from, if it still exists."""
        slide, store = table.header.slide, existing_store(self.run_dir.patch_store(record.slide_id))
        patches = read_patch_table(store) if store else None
        if (
            store is not None
            and patches is not None
            and patches.header.digest == table.header.parent_digest
            and np.array_equal(patches.grid.coords, table.coords)
        ):
            return PatchFiles.of(patches, store, record.path)
        return PatchFiles(
            record.slide_id, slide.quick_digest, record.path, table.coords, table.geometry, size=slide.size
        )

    def _file(self, record: SlideRecord, ending: str) -> Path:
        return self.run_dir.heatmap_file(self.encoder, self.model, record.slide_id, ending)

    def _features(self, record: SlideRecord) -> Path:
        made_by = f"embed --model {self.encoder}"
        return require_store(self.run_dir.feature_store(self.encoder, record.slide_id), made_by)

    @staticmethod
    def _digest(header: Header | None, fingerprint: str) -> str:
        parts: dict[str, Any] = {"models": fingerprint, "features": header.digest if header else ""}
        return digest_of(stage="heatmap", revision=REVISIONS["heatmap"], **parts)
