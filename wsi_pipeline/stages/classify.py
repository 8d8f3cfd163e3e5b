"""Stage `classify`: an adapter's head, or an image-text model with prompts, on the patches of tiled slides.

classify/<adapter>/<slide_id>.h5        probabilities float32 (N, C), row for row with the patch store
classify/<adapter>/<slide_id>.png       classes in colour over the thumbnail
classify/<adapter>/<slide_id>.geojson   areas of each class, for QuPath
classify/<adapter>/fractions.csv        fraction of each class in each slide (stages/results/fractions.py)
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store, require_store, slug
from wsi_pipeline.cohort.slide_status import StageStatus, State
from wsi_pipeline.config.specs import ClassifySpec
from wsi_pipeline.encoders.encoder import Encoder
from wsi_pipeline.encoders.patch_classifier import ClassifierPlan, PatchClassifier
from wsi_pipeline.errors import EncoderError, StoreError
from wsi_pipeline.report.maps.class_areas import UNCLEAR, class_areas, class_geojson, patch_labels
from wsi_pipeline.report.maps.class_overlay import draw_classes
from wsi_pipeline.stages.engine.freshness import REVISIONS, classify_digest, read_header, stale
from wsi_pipeline.stages.engine.guards import drop_other_format
from wsi_pipeline.stages.engine.qupath_origin import origin_in_run, qupath_origin
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.stages.inputs.find_adapter import remembered
from wsi_pipeline.stages.streaming.slide_rows import OutputRows, RowsPlan, Submit
from wsi_pipeline.store.schema import CLASS_FORMAT, PATCH_FORMAT, Header
from wsi_pipeline.store.tables.class_table import read_class_table, write_classes
from wsi_pipeline.store.tables.partial import RowsKey
from wsi_pipeline.store.tables.patch_table import PatchTable
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.system.atomic import write_bytes, write_text
from wsi_pipeline.tissue.geojson import from_origin, origin_of_file


@dataclass
class ClassifyStage:
    """Computes class probabilities. The network is loaded for the first batch; picklable until then.

    batch     patches in one batch
    compile   whether the network is compiled when it is loaded
    no_crop   polygon coordinates from the corner of the whole slide, for QuPath set to show it uncropped
    """

    run_dir: RunDir
    spec: ClassifySpec
    plan: ClassifierPlan
    device: str = "auto"
    batch: int = 16
    store: str = "hdf5"
    compile: bool = False
    no_crop: bool = False

    def __post_init__(self) -> None:
        if not self.plan.classes:
            raise EncoderError(
                f"adapter {self.plan.adapter} was tuned without classes, so it can embed but not classify",
                todo="Name another one with --adapter FILE.",
            )

    @property
    def name(self) -> str:
        """`classify/<adapter>`."""
        return f"classify/{slug(self.spec.model)}"

    @cached_property
    def classifier(self) -> PatchClassifier:
        """The loaded network. Raises EncoderError if the backbone's weights do not fit."""
        classifier = self.plan.open_classifier(self.device, self.spec.precision)
        if self.compile:
            classifier.encoder.compile()
        return classifier

    @property
    def encoder(self) -> Encoder:
        """The network before its head."""
        return self.classifier.encoder

    @property
    def submit(self) -> Submit:
        """The classifier's `submit`."""
        return self.classifier.submit

    def patch_store(self, record: SlideRecord) -> Path:
        """The slide's patch store. Raises StoreError, naming the command that creates it, if it is missing."""
        return require_store(self.run_dir.patch_store(record.slide_id), "tile slides.csv")

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the store's digest matches settings, patches and adapter, and picture and outlines exist."""
        path = self._store(record)
        header = read_header(path, CLASS_FORMAT)
        patches = read_header(self.patch_store(record), PATCH_FORMAT)
        if header and patches and header.digest == self._digest(patches, self.spec):
            missing = [made.name for made in self._pictures(record) if not made.is_file()]
            if missing:
                return Freshness(False, f"{missing[0]} is missing")
            origin = origin_in_run(self.run_dir, record.slide_id, self.no_crop)
            if origin_of_file(self._pictures(record)[1]) != origin:
                return Freshness(False, "its polygons use another origin than QuPath")
            return Freshness(True, status=_status(header))
        return stale(path, header, {"classify": asdict(self.spec)}, self.plan.fingerprint)

    def wanted(self, record: SlideRecord, table: PatchTable) -> RowsPlan | OutputRows:
        """Plan of the rows to compute, or the stored probabilities if only the pictures have to be redrawn.

        Raises EncoderError if the patches have another spacing than the adapter.
        """
        self.plan.info.check_spacing(table.geometry.mpp)
        rows, classes = len(table.grid), len(self.plan.classes)
        known = self._known(record, table)
        if known is not None or rows == 0:
            return known if known is not None else np.zeros((0, classes), np.float32)
        key = RowsKey(self._network(table.header), rows, classes, "float32", self.batch)
        return RowsPlan(self._store(record), key)

    def finish(self, record: SlideRecord, table: PatchTable, rows: OutputRows) -> StageStatus:
        """Draw the pictures, then write the store."""
        probabilities = rows.astype(np.float32, copy=False)
        header = self._header(table, probabilities)
        self._draw(record, table, probabilities, header)
        write_classes(self._store(record), header, table.geometry, table.grid.coords, probabilities)
        drop_other_format(self._store(record))
        return _status(header)

    def _known(self, record: SlideRecord, table: PatchTable) -> NDArray[np.float32] | None:
        """Probabilities of this network on these patches from an earlier call with another threshold, if any."""
        path = existing_store(self._store(record))
        header = read_header(path, CLASS_FORMAT) if path else None
        if path is None or header is None or header.extra.get("network") != self._network(table.header):
            return None
        try:
            return read_class_table(path).probabilities
        except StoreError:
            return None

    def _draw(self, record: SlideRecord, table: PatchTable, probabilities: NDArray[np.float32], header: Header) -> None:
        slide, classes, extra = table.header.slide, self.plan.classes, header.extra
        areas = class_areas(
            table.grid.coords, table.geometry.patch_level0, probabilities, slide.size, self.spec.min_probability
        )
        segment = read_segment_table(require_store(self.run_dir.segment_store(record.slide_id), "tile slides.csv"))
        fractions = [extra["fractions"].get(name, 0.0) for name in classes]
        image = draw_classes(segment.thumbnail, slide.size, areas, classes, fractions, unclear=extra["unclear"])
        png, geojson = io.BytesIO(), class_geojson(areas, classes, slide.mpp)
        geojson = from_origin(geojson, qupath_origin(segment.header, self.no_crop))
        image.save(png, "PNG")
        overlay, polygons = self._pictures(record)
        write_bytes(overlay, png.getvalue())
        write_text(polygons, json.dumps(geojson, ensure_ascii=False) + "\n")

    def _store(self, record: SlideRecord) -> Path:
        return self.run_dir.class_store(self.spec.model, record.slide_id, self.store)

    def _pictures(self, record: SlideRecord) -> tuple[Path, Path]:
        run, model = self.run_dir, self.spec.model
        return run.class_overlay(model, record.slide_id), run.class_polygons(model, record.slide_id)

    def _digest(self, patches: Header, spec: ClassifySpec) -> str:
        return classify_digest(spec, patches.digest, self.plan.fingerprint)

    def _network(self, patches: Header) -> str:
        """Digest of everything that the probabilities depend on, so without the threshold."""
        return self._digest(patches, replace(self.spec, min_probability=0.0))

    def _header(self, table: PatchTable, probabilities: NDArray[np.float32]) -> Header:
        patches = table.header
        adapter = remembered(self.run_dir, self.plan.adapter)
        return Header(
            CLASS_FORMAT,
            digest=self._digest(patches, self.spec),
            parent_digest=patches.digest,
            slide=patches.slide,
            specs={**patches.specs, "classify": asdict(self.spec)},
            extra={
                "revision": REVISIONS["classify"],
                "patches": len(probabilities),
                "classes": list(self.plan.classes),
                **summarise(probabilities, self.plan.classes, self.spec.min_probability),
                "encoder": {**self.plan.info.facts(), "fingerprint": self.plan.fingerprint},
                "adapter": adapter,
                **self.plan.remember(),
                "network": self._network(patches),
                "warning": patches.extra.get("warning", ""),
                "fit_note": self.plan.fit_note(table.geometry.patch_px, table.geometry.mpp),
            },
        )


def summarise(
    probabilities: NDArray[np.float32], classes: tuple[str, ...], min_probability: float = 0.0
) -> dict[str, Any]:
    """Fractions of a slide's patches: `fractions` by most likely class, `unclear`; and `mean_probabilities`.

    Fractions and `unclear` sum to 1. Without patches the mappings are empty and `unclear` is 0.
    """
    count = len(probabilities)
    if count == 0:
        return {"fractions": {}, "unclear": 0.0, "mean_probabilities": {}}
    labels = patch_labels(probabilities, min_probability)
    parts = [float((labels == number).sum()) / count for number in range(len(classes))]
    means = probabilities.mean(axis=0, dtype=np.float64)
    return {
        "fractions": dict(zip(classes, parts, strict=True)),
        "unclear": float((labels == UNCLEAR).sum()) / count,
        "mean_probabilities": {name: float(mean) for name, mean in zip(classes, means, strict=True)},
    }


def _status(header: Header) -> StageStatus:
    extra = header.extra
    summary = {key: extra[key] for key in ("patches", "fractions", "unclear")}
    state: State = "done" if extra["patches"] else "empty"
    return StageStatus(state, note=str(extra["warning"]), digest=header.digest, summary=summary)
