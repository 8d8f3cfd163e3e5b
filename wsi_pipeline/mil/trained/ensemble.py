"""Trained models on bags: predictions of all folds together, their spread, attention."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.zoo import MilModel
from wsi_pipeline.mil.tasks import choose_class
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.trained.inference import attention, outputs, prediction_table, probabilities

__all__ = [
    "attention", "mean_attention", "predict", "prediction_table", "probabilities",
    "reference_output",
]  # fmt: skip


def predict(ensemble: Ensemble, bags: Bags, *, device: torch.device | str = "cpu") -> pd.DataFrame:
    """Predictions of all fold models together, one row a bag, in the order of the bags.

    Columns: slide_id; those of the task, each number the mean over the folds (`predicted`: the class chosen from the
    mean probabilities); spread, the standard deviation between the folds of

        classification   the predicted class's probability; of grades (ordinal) too
        regression       the predicted value, in its unit
        survival         the risk: time expected to be lost, or log hazard ratio

    The risk of a Cox model has no zero of its own. Here each fold's is against a slide of one average training patch.
    Raises MilError if the bags' features are of another width.
    """
    each = [_told(ensemble, number, bags, device) for number in range(len(ensemble.models))]
    numbers = [name for name in each[0] if not (ensemble.classes and name == "predicted")]
    stacked = np.stack([table[numbers].to_numpy(dtype=np.float64) for table in each])
    mean, between = stacked.mean(0), stacked.std(0)
    table = pd.DataFrame(mean, columns=numbers)
    chosen = np.zeros(len(bags), np.int64)  # a regression or survival has its main number first
    if ensemble.classes:
        chosen = choose_class(ensemble.task, mean)
        table.insert(0, "predicted", [ensemble.classes[code] for code in chosen])
    table.insert(0, "slide_id", list(bags.slide_ids))
    return table.assign(spread=between[np.arange(len(bags)), chosen])


def mean_attention(ensemble: Ensemble, bags: Bags, *, device: torch.device | str = "cpu") -> NDArray[np.float32]:
    """Attention of each instance, float32 (sum N,), the mean over the fold models; sums to 1 within a bag."""
    each = [attention(model, bags, device=device) for model in ensemble.models]
    mean: NDArray[np.float32] = np.mean(each, axis=0, dtype=np.float32)
    return mean


def _told(ensemble: Ensemble, number: int, bags: Bags, device: torch.device | str) -> pd.DataFrame:
    """The prediction columns of one fold's model."""
    model, task = ensemble.models[number], ensemble.tasks[number]
    found = outputs(model, bags, device=device)
    return task.outcomes(found - reference_output(model, device) if task.relative else found)


def reference_output(model: MilModel, device: torch.device | str) -> NDArray[np.float64]:
    """The output (1, C) for a bag of one instance, the mean of the training instances."""
    bag = Bags.from_arrays([model.feature_mean.detach().cpu().numpy()[None]], ["mean"])
    return outputs(model, bag, device=device)
