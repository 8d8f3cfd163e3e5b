"""The attention of a trained model on one slide, and what each patch contributes to the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.zoo import MilModel
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.trained.inference import attention, contributions, outputs
from wsi_pipeline.report.maps.heatmaps import Heat
from wsi_pipeline.stages.results.trainings import Training, model_numbers
from wsi_pipeline.store.schema import SlideIdentity
from wsi_pipeline.store.tables.feature_table import FeatureTable

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the models make of one slide's N patches: everything that its heatmap shows.

    coords          int64 (N, 2), level-0 top-left (x, y) of each patch; patch_level0: its side, level-0 pixels
    attention       float64 (N,), sums to 1
    contributions   float64 (N, C), to the outputs named in `outputs`
    evidence        float64 (N,), for (+) or against (-) the output named in `towards`
    """

    slide: SlideIdentity
    coords: NDArray[np.int64]
    patch_level0: int
    attention: Floats
    contributions: Floats
    outputs: tuple[str, ...]
    evidence: Floats
    towards: str

    @property
    def attention_heat(self) -> Heat:
        """Attention as an overlay for the slide."""
        return Heat.of_attention(self.coords, self.patch_level0, self.attention)

    @property
    def evidence_heat(self) -> Heat:
        """Evidence as an overlay for the slide."""
        return Heat.of_contribution(self.coords, self.patch_level0, self.evidence, f"{self.towards}:")


def explain(ensemble: Ensemble, models: Sequence[MilModel], table: FeatureTable, device: str) -> Explanation:
    """The explanation of one slide's features, averaged over `models` (of `ensemble`)."""
    bags = Bags.from_arrays([table.features], [table.header.slide.slide_id])
    weights = _mean([attention(model, bags, device=device) for model in models])
    parts = _mean([contributions(model, bags, device=device) for model in models])
    of_classes = ensemble.task.name == "classification"
    names = ensemble.classes if of_classes else tuple(f"output {k}" for k in range(parts.shape[1]))
    evidence, towards = parts.sum(axis=1), {"survival": "risk", "regression": "value"}.get(ensemble.task.name, "output")
    if ensemble.task.name == "ordinal":
        # The first output shifts all cut points together; the others are distances between them.
        evidence, towards = parts[:, 0], "higher grade"
    if of_classes and len(names) >= 2:
        # Logits have meaning only relative to each other: for two classes the difference, for more the margin over
        # the mean of all.
        mean_output = np.mean([outputs(model, bags, device=device)[0] for model in models], 0)
        winner = 1 if len(names) == 2 else int(mean_output.argmax())
        against = parts[:, 0] if len(names) == 2 else parts.mean(axis=1)
        evidence, towards = parts[:, winner] - against, names[winner]
    return Explanation(
        table.header.slide, table.coords, table.geometry.patch_level0, weights, parts, names, evidence, towards
    )


def models_for_slide(training: Training, ensemble: Ensemble, record: SlideRecord) -> tuple[MilModel, ...]:
    """The models that tested the slide (or its patient), and so never saw its patient; all models if none did."""
    return (
        tuple(ensemble.models[k] for k in model_numbers(training.predictions, training.metrics, record))
        or ensemble.models
    )


def _mean(each: Sequence[NDArray[np.float32]]) -> Floats:
    mean: Floats = np.stack(each).astype(np.float64).mean(axis=0)
    return mean
