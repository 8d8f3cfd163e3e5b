"""Layers over a slide: tissue, the patch grid, quality, attention and contributions of each model, class maps."""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from matplotlib import colormaps
from numpy.typing import NDArray

from wsi_pipeline.cohort.run_dir import POOLED_MARK, RunDir, existing_store
from wsi_pipeline.errors import StoreError, UsageError
from wsi_pipeline.quality.measures import ARTEFACTS, FOLD, MEASURES, NAMES, limit_of
from wsi_pipeline.report.maps.artefact_overlay import COLOURS as ARTEFACT_COLOURS
from wsi_pipeline.report.maps.class_areas import class_colours
from wsi_pipeline.report.maps.heat import percentiles
from wsi_pipeline.report.maps.heatmaps import COLOUR_MAP, SIGNED_MAP, Heat
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.results.fractions import classified, made_alike, newest_classes
from wsi_pipeline.stages.results.trainings import Training, require_training
from wsi_pipeline.store.schema import PATCH_FORMAT
from wsi_pipeline.store.tables.class_table import read_class_table
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.tissue.contours import tissue_polygons
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.model_inputs import model_inputs

if TYPE_CHECKING:  # torch is imported once a model's layer is asked for
    from wsi_pipeline.mil.trained.checkpoint import Ensemble
    from wsi_pipeline.stages.outputs.explanation import Explanation

Json = dict[str, Any]

_KEPT_MODELS, _KEPT_SLIDES = 4, 8
TISSUE, GRID, COVERAGE, QUALITY, ATTENTION, CONTRIBUTION, CLASSES = (
    "tissue", "grid", "coverage", "quality", "attention", "contribution", "classes",
)  # fmt: skip


class PatchLayers:
    """The layers of each slide of a run, with a bounded cache of models and explanations. Thread-safe."""

    def __init__(self, library: Library) -> None:
        self._library, self._lock = library, threading.Lock()
        self._models: OrderedDict[Path, tuple[int, Training, Ensemble]] = OrderedDict()
        self._explained: OrderedDict[tuple[Path, str, int], tuple[Explanation, int]] = OrderedDict()

    def listed(self, slide_id: str) -> list[Json]:
        """Key, kind and name of each layer of this slide."""
        self._library.record(slide_id)
        run = self._library.run
        if run is None:
            return []
        found: list[Json] = []
        if existing_store(run.segment_store(slide_id)):
            found.append({"key": TISSUE, "kind": "outline", "name": "tissue outline"})
        if existing_store(run.patch_store(slide_id)):
            found.append({"key": GRID, "kind": "grid", "name": "patch grid"})
            found.append({"key": COVERAGE, "kind": "values", "name": "tissue fraction"})
            measured = self._measured(run, slide_id)
            if measured:
                found.append({"key": QUALITY, "kind": "classes", "name": "quality: artefacts"})
            for name in measured:
                found.append({"key": f"{QUALITY}:{name}", "kind": "values", "name": f"quality: {name}"})
        for model in classified(run):
            if existing_store(run.class_store(model, slide_id)):
                found.append({"key": f"{CLASSES}:{model}", "kind": "classes", "name": f"classes by {model}"})
        for folder in self._library.trainings():
            encoder, name = folder.parts[-2:]
            if POOLED_MARK not in encoder and existing_store(run.feature_store(encoder, slide_id)):
                for what in _explained(folder):
                    found.append(
                        {"key": f"{what}:{encoder}/{name}", "kind": "values", "name": f"{what}: {name}, {encoder}"}
                    )
        return found

    def read(self, slide_id: str, key: str) -> Json:
        """One layer as plain JSON; arrays are base64 of little-endian bytes. Raises UsageError for an unknown key."""
        entry = next((item for item in self.listed(slide_id) if item["key"] == key), None)
        if entry is None:
            raise UsageError(f"{slide_id} has no layer {key[:80]!r}")
        run = self._library.needed_run
        what, _, of = key.partition(":")
        if what == TISSUE:
            return {**entry, "rings": outlines(run, slide_id)}
        if what in (GRID, COVERAGE):
            return {**entry, **self._of_patches(run, slide_id, what)}
        if what == QUALITY:
            table = self.patches(slide_id)
            return {**entry, **(quality_layer(table, of) if of else artefact_layer(table))}
        if what == CLASSES:
            return {**entry, **self._classes(run, slide_id, of)}
        return {**entry, **self._explanation(run, slide_id, what, of)}

    def patches(self, slide_id: str) -> PatchTable:
        """The patch store of a slide. Raises UsageError if there is none."""
        self._library.record(slide_id)
        store = existing_store(self._library.needed_run.patch_store(slide_id))
        if store is None:
            raise UsageError(f"{slide_id} has no patches", todo="Tile it with: wsi-pipeline tile")
        return read_patch_table(store)

    def _measured(self, run: RunDir, slide_id: str) -> list[str]:
        """Names of the measures that at least one patch has, in the table's order, by the header of the patch store."""
        store = existing_store(run.patch_store(slide_id))
        header = read_header(store, PATCH_FORMAT) if store else None
        rows = (header.extra.get(QUALITY) or {}).get("measures", {}) if header else {}
        found = [name for name, row in rows.items() if row.get("measured")]
        return sorted(found, key=lambda name: NAMES.index(name) if name in NAMES else len(NAMES))

    def _of_patches(self, run: RunDir, slide_id: str, what: str) -> Json:
        table = self.patches(slide_id)
        geometry = (table.geometry.patch_level0, table.geometry.stride_level0)
        placed = _placed(table.grid.coords, *geometry)
        if what == GRID:
            return placed
        values = table.grid.coverage.astype(np.float64)
        ends = ("0 % tissue", "50 %", "100 %")
        return {**placed, **_valued(values, values, ends, False), "unit": "tissue", "percent": True}

    def _classes(self, run: RunDir, slide_id: str, model: str) -> Json:
        store = existing_store(run.class_store(model, slide_id))
        assert store is not None
        table = read_class_table(store)
        newest = newest_classes(run, model, self._library.records)
        older = newest is not None and not made_alike(table.header, newest)
        best = table.probabilities.argmax(axis=1) if len(table.coords) else np.zeros(0, np.int64)
        counts = np.bincount(best, minlength=len(table.classes))
        entries = [
            {"name": name, "colour": _hex(colour), "fraction": float(count / max(1, len(best)))}
            for name, colour, count in zip(table.classes, class_colours(len(table.classes)), counts, strict=True)
        ]
        placed = _placed(table.coords, table.geometry.patch_level0, table.geometry.stride_level0)
        chances = table.probabilities.max(axis=1) if len(table.coords) else np.zeros(0)
        return {
            **placed,
            "classes": entries,
            "best": packed(best.astype("u1")),
            "values": packed(chances.astype("<f4")),
            "note": "Classified before this model was tuned again." if older else "",
        }

    def _explanation(self, run: RunDir, slide_id: str, what: str, of: str) -> Json:
        made, stride = self._explained_by(run, slide_id, of)
        heat = made.attention_heat if what == ATTENTION else made.evidence_heat
        values = made.attention if what == ATTENTION else made.evidence
        words = {
            "unit": "of the attention" if what == ATTENTION else f"towards {made.towards}",
            "label": heat.label,
            "even": 1 / max(1, len(values)) if what == ATTENTION else None,
        }
        return {**_placed(made.coords, made.patch_level0, stride), **_heat(heat, values), **words}

    def _explained_by(self, run: RunDir, slide_id: str, of: str) -> tuple[Explanation, int]:
        """Explanation of a slide by the models of a training, and the stride of its patches."""
        from wsi_pipeline.stages.outputs.explanation import explain, models_for_slide

        encoder, _, name = of.partition("/")
        folder, store = run.mil(encoder, name), existing_store(run.feature_store(encoder, slide_id))
        assert store is not None
        key = (folder, slide_id, store.stat().st_mtime_ns)
        with self._lock:
            training, ensemble = self._model(folder)
            if key in self._explained:
                self._explained.move_to_end(key)
                return self._explained[key]
            table = read_feature_table(store)
            model_inputs(folder).check(table.header)
            models = models_for_slide(training, ensemble, self._library.record(slide_id))
            made = explain(ensemble, models, table, "cpu"), table.geometry.stride_level0
            _keep(self._explained, key, made, _KEPT_SLIDES)
            return made

    def _model(self, folder: Path) -> tuple[Training, Ensemble]:
        from wsi_pipeline.mil.trained.checkpoint import load_ensemble

        mark = (folder / "metrics.json").stat().st_mtime_ns
        known = self._models.get(folder)
        if known is None or known[0] != mark:
            known = mark, require_training(folder), load_ensemble(folder)
            self._explained.clear()
            _keep(self._models, folder, known, _KEPT_MODELS)
        return known[1], known[2]


def _explained(folder: Path) -> tuple[str, ...]:
    """What can be shown of the models of a training; the reason why files cannot be read is said with the layer."""
    try:
        inputs = model_inputs(folder)
    except StoreError:
        return ATTENTION, CONTRIBUTION
    return () if not inputs.stored else (ATTENTION, CONTRIBUTION) if inputs.attends else (CONTRIBUTION,)


def outlines(run: RunDir, slide_id: str) -> list[list[float]]:
    """Rings of the tissue outline, each x, y, x, y, ... in level-0 pixels."""
    store = existing_store(run.segment_store(slide_id))
    if store is None:
        return []
    rings = []
    for polygon in tissue_polygons(read_segment_table(store).mask):
        for ring in (polygon.exterior, *polygon.interiors):
            rings.append(shapely.get_coordinates(ring).round(1).ravel().tolist())
    return rings


def artefact_layer(table: PatchTable) -> Json:
    """The patches beyond a limit of quality by kind, first those kept, then those left out, without values."""
    flagged = table.flagged()
    kinds = zip(ARTEFACTS, ARTEFACT_COLOURS, flagged.counts(), strict=True)
    entries = [
        {
            "name": measure.artefact,
            "colour": _hex(colour),
            "count": count,
            "fraction": count / max(1, flagged.of),
            "unit": measure.unit or ("of the tissue" if measure.name == FOLD else "of the patch"),
        }
        for measure, colour, count in kinds
    ]
    placed = _placed(flagged.coords, table.geometry.patch_level0, table.geometry.stride_level0)
    best, values = flagged.kind.astype("u1"), flagged.value.astype("<f4")
    return {**placed, "classes": entries, "best": packed(best), "values": packed(values), "kept": flagged.kept}


def quality_layer(table: PatchTable, name: str) -> Json:
    """One measure of the patches that have it, coloured from the lowest to the highest value, or up to its limit."""
    quality = table.quality
    column = np.full(len(table.grid), np.nan, np.float32) if quality is None else quality.column(name)
    known = np.flatnonzero(~np.isnan(column))
    values = column[known].astype(np.float64)
    measure = next((measure for measure in MEASURES if measure.name == name), None)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if measure is not None and measure.limit is not None:
        low, high = 0.0, 2 * limit_of(measure, table.geometry.mpp, table.geometry.scan_mpp)
    place = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    unit = measure.unit if measure else ""
    ends = tuple(f"{value:.2g} {unit}".strip() for value in (low, (low + high) / 2, high))
    placed = _placed(table.grid.coords[known], table.geometry.patch_level0, table.geometry.stride_level0)
    words = "of the patch or its tissue" if measure and not unit else unit
    return {**placed, **_valued(values, place, (ends[0], ends[1], ends[2]), False), "unit": words}


def packed(values: NDArray[Any]) -> str:
    """An array as base64 of its bytes."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _placed(coords: NDArray[np.int64], side: int, stride: int) -> Json:
    return {"n": len(coords), "side": int(side), "stride": int(stride), "coords": packed(coords.astype("<i4"))}


def _heat(heat: Heat, values: NDArray[np.floating[Any]]) -> Json:
    return _valued(values, heat.unit, heat.labels, heat.signed)


def _valued(
    values: NDArray[np.floating[Any]], unit: NDArray[np.float64], ends: tuple[str, str, str], signed: bool
) -> Json:
    """Values, their positions on the colour map, and the colour map as 256 colours."""
    ranks = percentiles(values) if len(values) else np.zeros(0)
    return {
        "values": packed(values.astype("<f4")),
        "place": packed(np.rint(np.clip(unit, 0, 1) * 255).astype("u1")),
        "percentiles": packed(ranks.astype("<f4")),
        "colours": packed((colormaps[SIGNED_MAP if signed else COLOUR_MAP](np.arange(256))[:, :3] * 255).astype("u1")),
        "ends": list(ends),
        "signed": signed,
    }


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _keep(where: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    where[key] = value
    where.move_to_end(key)
    while len(where) > most:
        where.popitem(last=False)
