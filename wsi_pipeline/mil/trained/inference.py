"""One trained model on bags: probabilities and attention, in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.mil_model import MilModel, MilOutput
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
    """How much each instance moves each logit, float32 (sum N, C), row for row as `bags.features`.

    mean, max, abmil, gated-abmil, clam-sb and dsmil: exact, the attention taken as it is; the rows of a bag and the
    bias of the classifier add up to its logits. transmil: the gradient of the logit times the projected instance,
    which is the first-order term only.
    """
    model.to(device).eval()
    with torch.no_grad():
        rows = [
            model.contributions(batch.features.to(device), batch.offsets).cpu().float().numpy()
            for batch in pieces(bags, np.arange(len(bags)))
        ]
    return np.concatenate(rows) if rows else np.empty((0, model.n_outputs), np.float32)


def prediction_table(slide_ids: Sequence[str], values: NDArray[np.float64], classes: Sequence[str]) -> pd.DataFrame:
    """Columns slide_id, predicted, p_<class>... from probabilities (B, C)."""
    columns = {"slide_id": list(slide_ids), "predicted": [classes[k] for k in values.argmax(1)]}
    return pd.DataFrame({**columns, **{f"p_{name}": values[:, k] for k, name in enumerate(classes)}})


def _outputs(
    model: MilModel, bags: Bags, indices: NDArray[np.int64], device: torch.device | str
) -> Iterator[MilOutput]:
    model.to(device).eval()
    with torch.inference_mode():
        for batch in pieces(bags, indices):
            yield model(batch.features.to(device), batch.offsets)
