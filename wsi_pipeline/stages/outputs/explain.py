"""What a trained model looks at on one slide: attention and contribution of each patch, by the models that may tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.zoo import MilModel
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.trained.inference import attention, contributions, outputs
from wsi_pipeline.stages.results.trainings import Training

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Looked:
    """N patches of one slide as the models see them.

    attention       float64 (N,), sums to 1; contributions float64 (N, C) to the outputs named `names`
    evidence        float64 (N,), what a patch does for the one output that `towards` names
    """

    attention: Floats
    contributions: Floats
    names: tuple[str, ...]
    evidence: Floats
    towards: str


def look(ensemble: Ensemble, models: Sequence[MilModel], slide_id: str, features: Any, device: str) -> Looked:
    """What `models` (of `ensemble`), on average, see in one slide's features (N, D)."""
    bags = Bags.from_arrays([features], [slide_id])
    weights = _mean([attention(model, bags, device=device) for model in models])
    parts = _mean([contributions(model, bags, device=device) for model in models])
    names = ensemble.classes or tuple(f"output {k}" for k in range(parts.shape[1]))
    if len(names) < 2 or not ensemble.classes:
        return Looked(weights, parts, names, parts.sum(axis=1), _quantity(ensemble))
    # Logits mean something only against each other: two classes by their difference, more by what one has over all.
    winner = 1 if len(names) == 2 else int(np.mean([outputs(m, bags, device=device)[0] for m in models], 0).argmax())
    evidence = parts[:, 1] - parts[:, 0] if len(names) == 2 else parts[:, winner] - parts.mean(axis=1)
    return Looked(weights, parts, names, evidence, names[winner])


def who_may_tell(training: Training, ensemble: Ensemble, record: SlideRecord) -> tuple[MilModel, ...]:
    """The models that tested the slide (or its patient), which never saw its patient; all where none tested it."""
    return (
        tuple(ensemble.models[k] for k in model_numbers(training.predictions, training.metrics, record))
        or ensemble.models
    )


def model_numbers(predictions: pd.DataFrame, metrics: Mapping[str, Any], record: SlideRecord) -> list[int]:
    """Numbers of the models that tested the slide: one a repeat."""
    key, name = ("slide_id", record.slide_id) if "slide_id" in predictions else ("patient_id", record.patient_id)
    rows = predictions[predictions[key].astype(str) == str(name)]
    repeats = rows["repeat"] if "repeat" in rows else pd.Series(0, index=rows.index)
    listed = [(int(fold.get("repeat") or 0), int(fold["fold"])) for fold in metrics.get("folds") or ()]
    pairs = zip(repeats.astype(int), rows["fold"].astype(int), strict=True)
    return [listed.index(pair) if pair in listed else pair[1] for pair in pairs]


def _quantity(ensemble: Ensemble) -> str:
    return {"survival": "risk", "regression": "value"}.get(ensemble.task.name, "output")


def _mean(each: Sequence[NDArray[np.float32]]) -> Floats:
    mean: Floats = np.stack(each).astype(np.float64).mean(axis=0)
    return mean
