"""Stage `heatmap`: each slide's attention over its thumbnail.

A slide that was tested in cross-validation is shown as the model of that fold sees it, which never saw its patient;
any other slide as all fold models see it on average.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsi_pipeline.atomic import write_bytes
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.rundir import RunDir, require_store
from wsi_pipeline.cohort.status import StageStatus
from wsi_pipeline.fields import digest_of
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.checkpoint import Ensemble, load_ensemble
from wsi_pipeline.mil.predict import attention, mean_attention
from wsi_pipeline.report.heatmaps import draw_heatmap
from wsi_pipeline.stages.freshness import read_header
from wsi_pipeline.stages.runner import Freshness
from wsi_pipeline.stages.train_mil import require_training
from wsi_pipeline.store.features import FeatureTable, read_features
from wsi_pipeline.store.schema import FEATURE_FORMAT
from wsi_pipeline.store.segments import read_segment

_DIGEST = "wsi-pipeline digest"


@dataclass
class HeatmapStage:
    """Draws one slide after another for the model in train-mil/<encoder>/<model>."""

    run_dir: RunDir
    encoder: str
    model: str
    device: str = "cpu"

    @property
    def name(self) -> str:
        """`heatmap/<encoder>/<model>`."""
        return f"heatmap/{self.encoder}/{self.model}"

    @cached_property
    def ensemble(self) -> Ensemble:
        """The trained fold models."""
        return load_ensemble(self.run_dir.mil(self.encoder, self.model))

    @cached_property
    def folds(self) -> dict[str, int]:
        """Slide id -> the fold that tested it."""
        table = require_training(self.run_dir.mil(self.encoder, self.model)).predictions
        return dict(zip(table["slide_id"], (int(fold) for fold in table["fold"]), strict=True))

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date when the picture carries the digest of these models and features."""
        path = self.run_dir.heatmap(self.encoder, self.model, record.slide_id)
        digest = self._digest(record)
        return (
            Freshness(True, status=StageStatus("done", digest=digest))
            if _digest_in(path) == digest
            else Freshness(False)
        )

    def run(self, record: SlideRecord) -> StageStatus:
        """Draw one slide."""
        table = read_features(self._features(record))
        segment = read_segment(require_store(self.run_dir.segment_store(record.slide_id), "tile slides.csv"))
        image = draw_heatmap(
            segment.thumbnail, table.header.slide.size, table.coords, table.geometry.patch_level0,
            self._attention(record, table),
        )  # fmt: skip
        digest = self._digest(record)
        _write_png(self.run_dir.heatmap(self.encoder, self.model, record.slide_id), image, digest)
        return StageStatus("done" if len(table.coords) else "empty", digest=digest)

    def _attention(self, record: SlideRecord, table: FeatureTable) -> NDArray[np.float32]:
        bags = Bags.from_arrays([table.features], [record.slide_id])
        fold = self.folds.get(record.slide_id)
        if fold is None:
            return mean_attention(self.ensemble, bags, device=self.device)
        return attention(self.ensemble.models[fold], bags, device=self.device)

    def _features(self, record: SlideRecord) -> Path:
        made_by = f"embed --model {self.encoder}"
        return require_store(self.run_dir.feature_store(self.encoder, record.slide_id), made_by)

    def _digest(self, record: SlideRecord) -> str:
        header = read_header(self._features(record), FEATURE_FORMAT)
        features = header.digest if header else ""
        return digest_of(stage="heatmap", models=self.ensemble.fingerprint, features=features)


def _digest_in(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return str(image.info.get(_DIGEST, ""))
    except OSError:
        return ""


def _write_png(path: Path, image: Image.Image, digest: str) -> None:
    info, out = PngInfo(), io.BytesIO()
    info.add_text(_DIGEST, digest)
    image.save(out, "PNG", pnginfo=info)
    write_bytes(path, out.getvalue())
