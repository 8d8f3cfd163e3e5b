"""Stage `embed`: patches to features, one feature store per slide and encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.patient_hashes import name_hashes
from wsi_pipeline.cohort.run_dir import RunDir, require_store, slug
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.config.specs import EmbedSpec
from wsi_pipeline.encoders.encoder import Encoder, EncoderPlan
from wsi_pipeline.stages.engine.freshness import REVISIONS, embed_digest, read_header, stale
from wsi_pipeline.stages.engine.guards import drop_other_format
from wsi_pipeline.stages.engine.qupath_origin import ORIGIN
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.stages.inputs.find_adapter import remembered
from wsi_pipeline.stages.inputs.stain_files import StainTarget, require_profile
from wsi_pipeline.stages.streaming.slide_rows import OutputRows, Recolour, RowsPlan, Submit
from wsi_pipeline.stains.stain_profile import StainProfile
from wsi_pipeline.store.schema import FEATURE_FORMAT, IMPORTED, PATCH_FORMAT, Header
from wsi_pipeline.store.tables.feature_table import write_features
from wsi_pipeline.store.tables.partial import RowsKey
from wsi_pipeline.store.tables.patch_table import PatchTable


@dataclass
class EmbedStage:
    """Computes features with one encoder, which is loaded for the first batch; picklable until then.

    batch     patches in one batch
    compile   whether the network is compiled when it is loaded
    stain     whose stain the patches are given first; None: they are embedded as they are
    """

    run_dir: RunDir
    spec: EmbedSpec
    plan: EncoderPlan
    device: str = "auto"
    batch: int = 16
    store: str = "hdf5"
    compile: bool = False
    stain: StainTarget | None = None

    @property
    def name(self) -> str:
        """`embed/<encoder>`."""
        return f"embed/{slug(self.spec.model)}"

    @cached_property
    def encoder(self) -> Encoder:
        """The loaded encoder. Raises EncoderError if its weights do not fit."""
        encoder = self.plan.open(self.device, self.spec.precision)
        if self.compile:
            encoder.compile()
        return encoder

    @property
    def submit(self) -> Submit:
        """The encoder's `submit`."""
        return self.encoder.submit

    def patch_store(self, record: SlideRecord) -> Path:
        """The slide's patch store. Raises StoreError, naming the command that creates it, if it is missing."""
        return require_store(self.run_dir.patch_store(record.slide_id), "tile slides.csv")

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the feature store's digest matches settings, patches and weights."""
        path = self._store(record)
        header = read_header(path, FEATURE_FORMAT)
        patches = read_header(self.patch_store(record), PATCH_FORMAT)
        if header and patches and header.digest == self._digest(patches):
            return Freshness(True, status=_status(header))
        return stale(path, header, {"embed": self.facts()}, self.plan.fingerprint)

    def facts(self) -> dict[str, Any]:
        """The settings for digests and stores: as the spec has them, with the key of the stain target, not its path."""
        return {**self.spec.facts(), **({"stain_target": self.stain.key} if self.stain else {})}

    def wanted(self, record: SlideRecord, table: PatchTable) -> RowsPlan | OutputRows:
        """Plan of a slide's feature rows. Raises EncoderError if the patches have another spacing than the encoder."""
        self.plan.info.check_spacing(table.geometry.mpp)
        rows, dim, dtype = len(table.grid), self.plan.info.dim, self.spec.dtype
        if rows == 0:
            return np.zeros((0, dim), np.dtype(dtype))
        key = RowsKey(self._digest(table.header), rows, dim, dtype, self.batch)
        return RowsPlan(self._store(record), key, self._recolour(record, table.header))

    def finish(self, record: SlideRecord, table: PatchTable, rows: OutputRows) -> StageStatus:
        """Write the feature store."""
        header = self._header(record, table.header, len(table.grid))
        path = self._store(record)
        write_features(path, header, table.geometry, table.grid.coords, rows)
        drop_other_format(path)
        return _status(header)

    def _store(self, record: SlideRecord) -> Path:
        return self.run_dir.feature_store(self.spec.model, record.slide_id, self.store)

    def _digest(self, patches: Header) -> str:
        return embed_digest(self.facts(), patches.digest, self.plan.fingerprint)

    def _recolour(self, record: SlideRecord, patches: Header) -> Recolour | None:
        """What is done to the slide's patches first. Raises StoreError if its stain has not been measured."""
        if self.stain is None:
            return None
        from wsi_pipeline.stains.recolour import Recolouring

        profile, why = self._fit(self.stain, record, patches)
        if why:
            return None
        change, stage = Recolouring(profile, self.stain.profile), self
        return lambda batch: change(batch, stage.encoder.device)

    def _fit(self, target: StainTarget, record: SlideRecord, patches: Header) -> tuple[StainProfile, str]:
        """The slide's profile, and why it keeps its stain ("" if it is given the target's)."""
        from wsi_pipeline.stains.recolour import misfit

        profile = require_profile(self.run_dir, target.method, record.slide_id, patches.digest)
        return profile, misfit(profile, target.profile)

    def _stain_facts(self, record: SlideRecord, patches: Header, count: int) -> dict[str, Any]:
        """What the feature store says about the slide's stain."""
        if self.stain is None or not count:
            return {}
        profile, why = self._fit(self.stain, record, patches)
        about = {"normalised": not why, "reason": why, "target": self.stain.source, "profile": profile.to_json()}
        return {"stain": about}

    def _header(self, record: SlideRecord, patches: Header, count: int) -> Header:
        adapter = remembered(self.run_dir, self.plan.adapter)
        origin = (patches.extra.get(IMPORTED) or {}).get(ORIGIN)
        stain = {"stain": {"target": self.stain.profile.to_json()}} if self.stain else {}
        tuned_on = not self.plan.groups.isdisjoint(name_hashes((record.patient_id, record.slide_id)))
        return Header(
            FEATURE_FORMAT,
            digest=self._digest(patches),
            parent_digest=patches.digest,
            slide=patches.slide,
            specs={**patches.specs, "embed": self.facts(), **stain},
            extra={
                "revision": REVISIONS["embed"],
                "patches": count,
                "encoder": {**self.plan.info.facts(), "fingerprint": self.plan.fingerprint},
                "warning": patches.extra.get("warning", ""),
                **({"adapter": adapter} if adapter else {}),
                **({"tuned_on": True} if tuned_on else {}),
                **({ORIGIN: origin} if origin else {}),
                **self._stain_facts(record, patches, count),
            },
        )


def _status(header: Header) -> StageStatus:
    count, stain = int(header.extra["patches"]), header.extra.get("stain") or {}
    note = f"keeps its own stain: {stain['reason']}" if stain.get("reason") else ""
    return StageStatus("done" if count else "empty", note=note, digest=header.digest, summary={"patches": count})
