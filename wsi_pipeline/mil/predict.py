"""Trained models on bags: probabilities, their spread between folds, attention."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.checkpoint import Ensemble
from wsi_pipeline.mil.inference import attention, prediction_table, probabilities

__all__ = ["attention", "mean_attention", "predict", "prediction_table", "probabilities"]


def predict(ensemble: Ensemble, bags: Bags, *, device: torch.device | str = "cpu") -> pd.DataFrame:
    """Predictions of all fold models together, one row a bag, in the order of the bags.

    Columns: slide_id; predicted, the class with the highest mean probability; p_<class>..., the means over the
    folds; spread, the standard deviation between the folds of the predicted class's probability.

    Raises MilError if the bags' features are of another width.
    """
    each = np.stack([probabilities(model, bags, device=device) for model in ensemble.models])
    table = prediction_table(bags.slide_ids, each.mean(0), ensemble.classes)
    winners = each.mean(0).argmax(1)
    return table.assign(spread=each.std(0)[np.arange(len(bags)), winners])


def mean_attention(ensemble: Ensemble, bags: Bags, *, device: torch.device | str = "cpu") -> NDArray[np.float32]:
    """Attention of each instance, float32 (sum N,), the mean over the fold models; sums to 1 within a bag."""
    each = [attention(model, bags, device=device) for model in ensemble.models]
    mean: NDArray[np.float32] = np.mean(each, axis=0, dtype=np.float32)
    return mean
