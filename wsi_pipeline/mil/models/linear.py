"""A linear model of the mean of all instances: logistic, ridge or Cox regression, depending on the task.

On slide embeddings, bags of one row, it is the usual linear probe; on patch features, the simplest baseline.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, MilOutput, apply_head
from wsi_pipeline.mil.models.ragged import segment_mean, segment_uniform


@MIL_MODELS.register("linear")
class LinearMean(nn.Module):
    """Outputs W z + b of the bag's mean z, which is 0 for an empty bag.

    Fitted to convergence with an L2 penalty (`training.linear_path`), not by gradient steps on batches.
    """

    def __init__(self, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.head = nn.Linear(in_dim, n_outputs)

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1) -> logits (B, C), attention (sum N,), 1 / N for each instance."""
        pooled = segment_mean(features, offsets)
        return MilOutput(apply_head(self.head, pooled), segment_uniform(offsets).to(pooled.device))

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Exact: W on each instance over the number of instances, (sum N, C)."""
        weights = segment_uniform(offsets).to(features.device)
        return functional.linear(features * weights[:, None], self.head.weight)
