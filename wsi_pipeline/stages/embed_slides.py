"""Stage `embed-slides`: a slide encoder pools the patch features of each slide into one vector.

embed/<encoder>+<slide encoder>/
  <slide_id>.h5     a feature store with one row (no rows for a slide without patches), without coordinates
  embeddings.csv    all slides of the run: slide_id, patient_id, label, site, then the values

Everything that reads features also reads these: `train-mil --features uni+mean`, `predict`, `compare`. A slide is
embedded again only if its features or the slide encoder have changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, pooled_name, require_store
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders.slide_zoo.plan_slide import Embed, MeanPlan, SlideLayoutPlan
from wsi_pipeline.encoders.slide_zoo.slide_networks import PatchRows, weighted_sum_of
from wsi_pipeline.errors import MilError, StoreError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.trained.inference import attention
from wsi_pipeline.stages.engine.freshness import REVISIONS, embed_slides_digest, read_header, stale
from wsi_pipeline.stages.engine.guards import drop_other_format
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.stages.inputs.alike import differing_patches
from wsi_pipeline.stages.inputs.slide_bags import gather
from wsi_pipeline.stages.results.trainings import Training, model_numbers, trained_patients
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import COORDS, FEATURE_FORMAT, FEATURES, IMPORTED, POOLED, Header
from wsi_pipeline.store.store import Store
from wsi_pipeline.store.tables.feature_table import write_features
from wsi_pipeline.store.tables.patch_table import geometry_from
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.system.device import choose_device
from wsi_pipeline.system.locks import locked
from wsi_pipeline.tiling.resolve import PatchGeometry

NAME = "embed-slides"
ROWS = 4096
"""Patches that go through a slide encoder at a time."""


class SlidePooling(Protocol):
    """How the patches of a slide become one vector."""

    @property
    def name(self) -> str:
        """Name of the slide encoder."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever embeddings would."""

    def check(self, header: Header, geometry: PatchGeometry) -> None:
        """Raise an error unless this slide encoder accepts the features of this store."""

    def dim(self, in_dim: int) -> int:
        """Length of an embedding of features of length `in_dim`."""

    def by(self, record: SlideRecord) -> Any:
        """The parts of the slide encoder that embed this slide, for the digest; None: all of it."""

    def tuned_on(self, record: SlideRecord) -> bool:
        """Whether the slide encoder was trained on labels of the slide's patient."""

    def pool(self, record: SlideRecord, rows: PatchRows) -> NDArray[np.float32]:
        """The embedding, (E,), of a slide with at least one patch."""


@dataclass
class PlanPooling:
    """A slide encoder not trained on this cohort: the mean or a published one, loaded when first needed."""

    plan: MeanPlan | SlideLayoutPlan
    device: str = "auto"

    @property
    def name(self) -> str:
        """Name of the slide encoder."""
        return self.plan.name

    @property
    def fingerprint(self) -> str:
        """As in the plan."""
        return self.plan.fingerprint

    @cached_property
    def embed(self) -> Embed:
        """The loaded slide encoder. Raises EncoderError if its weights do not fit."""
        return self.plan.open(str(choose_device(self.device)))

    def check(self, header: Header, geometry: PatchGeometry) -> None:
        """Raise EncoderError unless patches and encoder of the features are those it was trained on."""
        places = (header.extra.get(IMPORTED) or {}).get("coords", "level0") == "level0"
        self.plan.check(header.extra["encoder"], geometry.patch_px, geometry.mpp, places=places)

    def dim(self, in_dim: int) -> int:
        """As in the plan."""
        return self.plan.dim(in_dim)

    def by(self, record: SlideRecord) -> None:
        """All of it."""

    def tuned_on(self, record: SlideRecord) -> bool:
        """False: it was trained without labels of this cohort."""
        return False

    def pool(self, record: SlideRecord, rows: PatchRows) -> NDArray[np.float32]:
        """The embedding, (E,)."""
        device = choose_device(self.device)
        blocks = (block.to(device) for block in rows.blocks)
        return self.embed(PatchRows(blocks, rows.coords, rows.patch_level0)).cpu().numpy()


@dataclass
class TrainedPooling:
    """Out-of-fold attention of a model trained here: only models that never saw the slide's patient are used.

    The embedding is the mean of the patch features, weighted by the mean attention of these models. It lies in the
    feature space of the patch encoder, whichever models were used for a slide. Hidden activations would not do: they
    are not comparable between models of different folds.
    """

    training: Training
    ensemble: Ensemble
    device: str = "auto"

    @property
    def name(self) -> str:
        """`trained.` and the folder name of the training."""
        return f"trained.{self.training.folder.name}"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all its models."""
        return self.ensemble.fingerprint

    @cached_property
    def patients(self) -> frozenset[str]:
        """Patients whose slides the models were trained on."""
        return trained_patients(self.training.folder)

    def check(self, header: Header, geometry: PatchGeometry) -> None:
        """Raise MilError unless encoder and patches of the features are those the models were trained on."""
        self.ensemble.check_encoder(header.extra["encoder"])
        differing = differing_patches(header.specs, self.ensemble.provenance["specs"])
        if differing:
            raise MilError(f"the patches are not such as the model was trained on: {', '.join(differing)}")

    def dim(self, in_dim: int) -> int:
        """The length of the patch features."""
        return in_dim

    def by(self, record: SlideRecord) -> list[int]:
        """Numbers of the models that never saw the slide's patient. Raises MilError if there is none."""
        found = model_numbers(self.training.predictions, self.training.metrics, record)
        if not found and self.tuned_on(record):
            raise MilError(
                "every model of this training has seen the slide's patient",
                todo="Embed the slides of patients that were tested, or train with folds instead of a fixed split.",
            )
        return found or list(range(len(self.ensemble.models)))

    def tuned_on(self, record: SlideRecord) -> bool:
        """Whether any of the models was trained on the slide's patient."""
        return str(record.patient_id) in self.patients

    def pool(self, record: SlideRecord, rows: PatchRows) -> NDArray[np.float32]:
        """The embedding, (D,)."""
        blocks = list(rows.blocks)
        bag = Bags(torch.cat(blocks), np.array([0, sum(map(len, blocks))], np.int64), (record.slide_id,))
        device, chosen = choose_device(self.device), [self.ensemble.models[k] for k in self.by(record)]
        each = [attention(model, bag, device=device).astype(np.float64) for model in chosen]
        weights = torch.from_numpy(np.mean(each, axis=0)).split([len(block) for block in blocks])  # type: ignore[no-untyped-call]
        return weighted_sum_of(blocks, weights).numpy()


@dataclass
class EmbedSlidesStage:
    """Embeds slides from their features of one patch encoder.

    encoder   folder name of the features under embed/
    """

    run_dir: RunDir
    encoder: str
    pooling: SlidePooling
    store: str = "hdf5"

    @property
    def folder(self) -> str:
        """Folder name of the embeddings under embed/."""
        return pooled_name(self.encoder, self.pooling.name)

    @property
    def name(self) -> str:
        """`embed-slides/<encoder>+<slide encoder>`."""
        return f"{NAME}/{self.folder}"

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the digest matches the features and the slide encoder."""
        path, features = self._path(record), read_header(self._features(record), FEATURE_FORMAT)
        header = read_header(path, FEATURE_FORMAT)
        if header and features and header.digest == self._digest(record, features):
            return Freshness(True, status=_status(header))
        return stale(path, header, {NAME: self._spec()}, None)

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Embed one slide; the slide itself is not opened."""
        path = self._features(record)
        with open_store(path) as store:
            header = Header.parse(store.attrs, FEATURE_FORMAT, path)
            geometry, (count, dim) = geometry_from(store.array_attrs(COORDS), path), store.shape(FEATURES)
            self.pooling.check(header, geometry)
            wanted = self.pooling.dim(dim)
            found = np.zeros((0, wanted), np.float32)
            if count:
                rows = PatchRows(_blocks(store), torch.from_numpy(store.read(COORDS)), geometry.patch_level0)
                found = self.pooling.pool(record, rows)[None]
        if found.shape[1] != wanted:
            raise StoreError(f"the slide encoder {self.pooling.name} gave {found.shape[1]} values, not {wanted}")
        made = self._header(record, header, count, wanted)
        write_features(self._path(record), made, geometry, np.full((len(found), 2), -1, np.int64), found)
        drop_other_format(self._path(record))
        return _status(made)

    def _spec(self) -> dict[str, Any]:
        return {"model": self.pooling.name, "features": self.encoder}

    def _features(self, record: SlideRecord) -> Path:
        return require_store(self.run_dir.feature_store(self.encoder, record.slide_id), f"embed --model {self.encoder}")

    def _path(self, record: SlideRecord) -> Path:
        return self.run_dir.feature_store(self.folder, record.slide_id, self.store)

    def _digest(self, record: SlideRecord, features: Header) -> str:
        by = self.pooling.by(record)
        return embed_slides_digest(self._spec(), features.digest, self.pooling.fingerprint, by)

    def _header(self, record: SlideRecord, features: Header, count: int, dim: int) -> Header:
        tuned = bool(features.extra.get("tuned_on")) or self.pooling.tuned_on(record)
        kept = {key: features.extra[key] for key in (IMPORTED, "adapter") if key in features.extra}
        return Header(
            FEATURE_FORMAT,
            digest=self._digest(record, features),
            parent_digest=features.digest,
            slide=features.slide,
            specs={**features.specs, NAME: self._spec()},
            extra={
                "revision": REVISIONS[NAME],
                "patches": min(count, 1),
                "encoder": identity_of_embedding(self.folder, dim, features.extra["encoder"], self.pooling.fingerprint),
                "warning": features.extra.get("warning", ""),
                POOLED: {"encoder": self.encoder, "patches": count},
                **({"tuned_on": True} if tuned else {}),
                **kept,
            },
        )


def write_embeddings(run: RunDir, name: str, cohort: Sequence[SlideRecord]) -> Path:
    """Write embeddings.csv of all slides of the cohort that have a current embedding; returns its path.

    Raises MilError if no slide has one, or if the embeddings do not belong together.
    """
    slides = gather(run, cohort, name)
    about = [column for column in ("slide_id", "patient_id", "label", "site") if column in slides.table]
    values = np.asarray(slides.bags.features)
    table = slides.table[about].reset_index(drop=True)
    for k in range(values.shape[1]):
        table.insert(len(table.columns), f"e{k}", [f"{value:.9g}" for value in values[:, k]])
    path = run.embeddings_csv(name)
    with locked(run.lock(NAME, name), math.inf):
        write_text(path, table.to_csv(index=False, lineterminator="\n"))
    return path


def identity_of_embedding(name: str, dim: int, encoder: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Identity of the encoders behind an embedding; no fingerprint if that of the patch features is unknown."""
    known = str(encoder.get("fingerprint", ""))
    return {
        "name": name,
        "dim": dim,
        "fingerprint": digest_of(patches=known, slides=fingerprint) if known else "",
        "slide_encoder": fingerprint,
    }


def _blocks(store: Store) -> Iterator[torch.Tensor]:
    for start in range(0, store.shape(FEATURES)[0], ROWS):
        yield torch.from_numpy(store.read(FEATURES, start, start + ROWS).astype(np.float32))


def _status(header: Header) -> StageStatus:
    count = int(header.extra["patches"])
    summary = {"pooled": int(header.extra[POOLED]["patches"])}
    return StageStatus("done" if count else "empty", digest=header.digest, summary=summary)
