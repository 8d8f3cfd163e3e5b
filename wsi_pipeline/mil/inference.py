"""One trained model on bags: probabilities and attention, in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.contract import MilModel, MilOutput
from wsi_pipeline.mil.pieces import pieces


def probabilities(
    model: MilModel, bags: Bags, indices: NDArray[np.int64] | None = None, *, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Class probabilities (b, C) of the bags at `indices` (all of them if None): the softmax of the logits."""
    chosen = np.arange(len(bags)) if indices is None else indices
    rows = [output.logits.cpu().double().softmax(1).numpy() for output in _outputs(model, bags, chosen, device)]
    return np.concatenate(rows) if rows else np.empty((0, model.n_outputs))


def attention(model: MilModel, bags: Bags, *, device: torch.device | str = "cpu") -> NDArray[np.float32]:
    """Attention of each instance, float32 (sum N,), row for row as `bags.features`; sums to 1 within a bag."""
    rows = [output.attention.cpu().float().numpy() for output in _outputs(model, bags, np.arange(len(bags)), device)]
    return np.concatenate(rows) if rows else np.empty(0, np.float32)


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
