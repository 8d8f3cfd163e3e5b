"""Mean pooling: every instance counts the same. What attention has to beat."""

from __future__ import annotations

from torch import Tensor, nn

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, MilOutput, classify, head, head_contributions, projection
from wsi_pipeline.mil.models.ragged import segment_mean, segment_uniform


@MIL_MODELS.register("mean")
class MeanPooling(nn.Module):
    """Gated ABMIL without its attention: the same projection and classifier, uniform weights."""

    def __init__(self, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.projection = projection(in_dim, spec)
        self.head = head(n_outputs, spec)

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1) -> logits (B, C), attention (sum N,), 1 / N for each instance."""
        pooled = segment_mean(self.projection(features), offsets)
        return MilOutput(classify(self.head, pooled), segment_uniform(offsets).to(pooled.device))

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Exact: the classifier on each projected instance over the number of instances, (sum N, C)."""
        weights = segment_uniform(offsets).to(features.device)
        return head_contributions(self.head, self.projection(features) * weights[:, None])
