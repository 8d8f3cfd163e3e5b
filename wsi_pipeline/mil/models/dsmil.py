"""DSMIL: Li, Li, Eliceiri, "Dual-stream multiple instance learning network for whole slide image classification", 2021.

The first stream scores every instance and takes the maximum; in the second, that critical instance attends to all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, Dropout, MilOutput, projection
from wsi_pipeline.mil.models.ragged import segment_argmax, segment_ids, segment_pool, segment_softmax


@MIL_MODELS.register("dsmil")
class DsMil(nn.Module):
    """The outputs are the mean of both streams.

    c_m = max_i W_0 h_i, one critical instance m for each class; U(h_i, h_m) = softmax_i <q_i, q_m>, q = W_q h;
    b = sum_i U(h_i, h_m) v_i, v = W_v h, one embedding per class; c_b = W_b b over the embeddings of all classes. The
    products <q_i, q_m> are scaled by the square root of their dimension, as in scaled dot-product attention. The
    attention of an instance is the mean over the classes. In an empty bag h_m = b = 0.
    """

    def __init__(self, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.projection = projection(in_dim, spec)
        self.instance = nn.Linear(spec.hidden_dim, n_outputs)
        self.query = nn.Linear(spec.hidden_dim, spec.attention_dim)
        self.value = nn.Sequential(Dropout(spec.dropout), nn.Linear(spec.hidden_dim, spec.hidden_dim))
        self.bag = nn.Linear(n_outputs * spec.hidden_dim, n_outputs)

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1) -> logits (B, C), attention (sum N,)."""
        instances = self.projection(features)
        scores = self.instance(instances).float()
        critical = segment_argmax(scores, offsets)
        attention = self._attention(instances, critical, offsets)
        values = self.value(instances)
        pooled = torch.stack([segment_pool(values, weights, offsets) for weights in attention.unbind(1)], 1)
        highest = _rows(scores, critical).diagonal(dim1=1, dim2=2)  # each class has its own critical instance
        highest = torch.where(critical >= 0, highest, self.instance.bias.float())
        return MilOutput((highest + self.bag(pooled.flatten(1)).float()) / 2, attention.mean(1))

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Exact: half of an instance's share in each embedding, plus half of its score if it is critical."""
        instances = self.projection(features)
        scores: Tensor = self.instance(instances)
        critical = segment_argmax(scores, offsets)
        attention = self._attention(instances, critical, offsets)
        by_class = self.bag.weight.reshape(len(self.bag.weight), scores.shape[1], -1)  # (C out, C embeddings, H)
        values = self.value(instances)
        streams = sum(attention[:, c, None] * functional.linear(values, by_class[:, c]) for c in range(scores.shape[1]))
        rows = torch.arange(len(features), device=features.device)[:, None]
        first = scores - self.instance.bias
        chosen = rows == critical[segment_ids(offsets.to(rows.device))]
        return 0.5 * (first * chosen + streams)

    def _attention(self, instances: Tensor, critical: Tensor, offsets: Tensor) -> Tensor:
        """U of each instance for each class, (sum N, C)."""
        queries = self.query(instances).float()
        bag = segment_ids(offsets.to(queries.device))
        columns = []
        for asking in _rows(queries, critical).unbind(1):
            products = (queries * asking[bag]).sum(1) / math.sqrt(queries.shape[1])
            columns.append(segment_softmax(products, offsets))
        return torch.stack(columns, 1)


def _rows(values: Tensor, indices: Tensor) -> Tensor:
    """The rows (B, C, W) of values (sum N, W) at indices (B, C); 0 where the index is -1."""
    if not len(values):
        return values.new_zeros(*indices.shape, values.shape[1])
    return values[indices.clamp(min=0)] * (indices >= 0)[..., None]
