"""Stage `embed`: patches to features, one feature store per slide and encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.marks import marks
from wsi_pipeline.cohort.rundir import RunDir, require_store, slug
from wsi_pipeline.cohort.status import StageStatus
from wsi_pipeline.encoders.base import Encoder, EncoderPlan
from wsi_pipeline.specs import EmbedSpec
from wsi_pipeline.stages.adapters import remembered
from wsi_pipeline.stages.batches import Reading, fill_rows
from wsi_pipeline.stages.freshness import REVISIONS, embed_digest, read_header, stale
from wsi_pipeline.stages.runner import Freshness
from wsi_pipeline.stages.segment import drop_other_format
from wsi_pipeline.store.features import write_features
from wsi_pipeline.store.patches import PatchTable, read_patches
from wsi_pipeline.store.schema import FEATURE_FORMAT, PATCH_FORMAT, Header


@dataclass
class EmbedStage:
    """Embeds one slide after another with one encoder, which is loaded when the first slide needs it.

    batch, threads   patches per batch and reader threads
    on_patches       called with the number of patches done after every batch
    """

    run_dir: RunDir
    spec: EmbedSpec
    plan: EncoderPlan
    device: str = "auto"
    batch: int = 16
    threads: int = 2
    store: str = "hdf5"
    on_patches: Callable[[int], None] = field(default=lambda count: None)

    @property
    def name(self) -> str:
        """`embed/<encoder>`."""
        return f"embed/{slug(self.spec.model)}"

    @cached_property
    def encoder(self) -> Encoder:
        """The loaded encoder."""
        return self.plan.open(self.device, self.spec.precision)

    def listen(self, on_patches: Callable[[int], None]) -> None:
        """Tell `on_patches` how many patches are done after every batch."""
        self.on_patches = on_patches

    def load(self) -> None:
        """Load the encoder now. Raises EncoderError where its weights do not fit."""
        _ = self.encoder

    def patch_store(self, record: SlideRecord) -> Path:
        """The slide's patch store; raises StoreError naming the command that makes it."""
        return require_store(self.run_dir.patch_store(record.slide_id), "tile slides.csv")

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date when the feature store's digest matches settings, patches and weights."""
        path = self.run_dir.feature_store(self.spec.model, record.slide_id, self.store)
        header = read_header(path, FEATURE_FORMAT)
        patches = read_header(self.patch_store(record), PATCH_FORMAT)
        if header and patches and header.digest == self._digest(patches):
            return Freshness(True, status=_status(header))
        return stale(path, header, {"embed": asdict(self.spec)}, self.plan.fingerprint)

    def patches_to_do(self, record: SlideRecord, table: PatchTable) -> int:
        """How many patches of a slide have to be encoded."""
        return 0 if self.check(record).fresh else len(table.grid)

    def run(self, record: SlideRecord) -> StageStatus:
        """Embed one slide; its features are written when all of them are there."""
        table = read_patches(self.patch_store(record))
        self.plan.info.check_spacing(table.geometry.mpp)
        features = self._features(record, table)
        header = self._header(record, table.header, len(table.grid))
        path = self.run_dir.feature_store(self.spec.model, record.slide_id, self.store)
        write_features(path, header, table.geometry, table.grid.coords, features)
        drop_other_format(path)
        return _status(header)

    def _features(self, record: SlideRecord, table: PatchTable) -> NDArray[np.floating]:
        out = np.zeros((len(table.grid), self.plan.info.dim), np.dtype(self.spec.dtype))
        reading = Reading(self.batch, self.threads, self.on_patches)
        with np.errstate(over="ignore"):  # an overflow to infinity is refused, with its row, at the write
            # The encoder is loaded by the first batch, so that slides without patches need none.
            fill_rows(out, lambda batch: self.encoder.encode(batch), record, self.patch_store(record), table, reading)
        return out

    def _digest(self, patches: Header) -> str:
        return embed_digest(self.spec, patches.digest, self.plan.fingerprint)

    def _header(self, record: SlideRecord, patches: Header, count: int) -> Header:
        info = asdict(self.plan.info)
        adapter = remembered(self.run_dir, self.plan.adapter)
        tuned_on = not self.plan.groups.isdisjoint(marks((record.patient_id, record.slide_id)))
        return Header(
            FEATURE_FORMAT,
            digest=self._digest(patches),
            parent_digest=patches.digest,
            slide=patches.slide,
            specs={**patches.specs, "embed": asdict(self.spec)},
            extra={
                "revision": REVISIONS["embed"],
                "patches": count,
                "encoder": {**info, "fingerprint": self.plan.fingerprint},
                "warning": patches.extra.get("warning", ""),
                **({"adapter": adapter} if adapter else {}),
                **({"tuned_on": True} if tuned_on else {}),
            },
        )


def _status(header: Header) -> StageStatus:
    count = int(header.extra["patches"])
    return StageStatus("done" if count else "empty", digest=header.digest, summary={"patches": count})
