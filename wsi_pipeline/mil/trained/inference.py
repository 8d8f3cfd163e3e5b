"""Apply trained models to bags: predictions, attention, contributions; of one model, or of an ensemble.

Bags go through a model in batches of bounded size (`training.batching`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.mil_model import MilModel, MilOutput
from wsi_pipeline.mil.tasks import choose_class
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.training.batching import pieces


def outputs(
    model: MilModel, bags: Bags, indices: NDArray[np.int64] | None = None, *, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Outputs of the network, float64 (b, C), for the bags at `indices` (all of them if None)."""
    chosen = np.arange(len(bags)) if indices is None else indices
    rows = [output.logits.cpu().double().numpy() for output in _outputs(model, bags, chosen, device)]
    return np.concatenate(rows) if rows else np.empty((0, model.n_outputs))


def probabilities(
    model: MilModel, bags: Bags, indices: NDArray[np.int64] | None = None, *, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Class probabilities (b, C) of the bags at `indices` (all of them if None): the softmax of the outputs."""
    values: NDArray[np.float64] = softmax(outputs(model, bags, indices, device=device), axis=1)
    return values


def attention(model: MilModel, bags: Bags, *, device: torch.device | str = "cpu") -> NDArray[np.float32]:
    """Attention of each instance, float32 (sum N,), row for row as `bags.features`; sums to 1 within a bag."""
    rows = [output.attention.cpu().float().numpy() for output in _outputs(model, bags, np.arange(len(bags)), device)]
    return np.concatenate(rows) if rows else np.empty(0, np.float32)


def contributions(model: MilModel, bags: Bags, *, device: torch.device | str = "cpu") -> NDArray[np.float32]:
    """What each instance contributes to each logit, float32 (sum N, C), row for row as `bags.features`.

    mean, max, abmil, gated-abmil, clam-sb, dsmil: exact for the given attention; the rows of a bag plus the bias of
    the classifier sum to the logits. transmil: gradient of the logit times the projected instance, the first-order
    term only.
    """
    model.to(device).eval()
    with torch.no_grad():
        rows = [
            model.contributions(batch.features.to(device), batch.offsets).cpu().float().numpy()
            for batch in pieces(bags, np.arange(len(bags)))
        ]
    return np.concatenate(rows) if rows else np.empty((0, model.n_outputs), np.float32)


def predict(ensemble: Ensemble, bags: Bags, *, device: torch.device | str = "cpu") -> pd.DataFrame:
    """Predictions averaged over the fold models, one row per bag, in the order of the bags.

    Columns: slide_id; those of the task, each number the mean over the folds (`predicted`: the class chosen from the
    mean probabilities); spread, the standard deviation over the folds of

        classification   the predicted class's probability; of grades (ordinal) too
        regression       the predicted value, in its unit
        survival         the risk: time expected to be lost, or log hazard ratio

    Risks of Cox models have no common zero: each fold's is taken relative to a slide of one average training patch.
    Raises MilError if the features of the bags have another width.
    """
    each = [_columns(ensemble, number, bags, device) for number in range(len(ensemble.models))]
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
    """Attention of each instance, float32 (sum N,), averaged over the fold models; sums to 1 within a bag."""
    each = [attention(model, bags, device=device) for model in ensemble.models]
    mean: NDArray[np.float32] = np.mean(each, axis=0, dtype=np.float32)
    return mean


def _columns(ensemble: Ensemble, number: int, bags: Bags, device: torch.device | str) -> pd.DataFrame:
    """The prediction columns of the model of one fold."""
    model, task = ensemble.models[number], ensemble.tasks[number]
    found = outputs(model, bags, device=device)
    return task.outcomes(found - reference_output(model, device) if task.relative else found)


def reference_output(model: MilModel, device: torch.device | str) -> NDArray[np.float64]:
    """What Cox risks are relative to: the output (1, C) for a bag of the mean of the training instances."""
    bag = Bags.from_arrays([model.feature_mean.detach().cpu().numpy()[None]], ["mean"])
    return outputs(model, bag, device=device)


def _outputs(
    model: MilModel, bags: Bags, indices: NDArray[np.int64], device: torch.device | str
) -> Iterator[MilOutput]:
    model.to(device).eval()
    with torch.inference_mode():
        for batch in pieces(bags, indices):
            yield model(batch.features.to(device), batch.offsets)
