"""Several models of one outer fold whose predictions are averaged.

A single early-stopping part takes a random tenth or fifth of a small cohort out of training. In a
committee every training patient is in the early-stopping part of one member and trains the others (cross-validation
committees: Parmanto, Munro, Doyle, "Improving committee diagnosis with resampling techniques", NIPS 1995). Without an
early-stopping part the members differ by their seeds, and averaging removes the variation from initialisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import cast

import torch
from torch import Tensor, nn

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.mil_model import MilModel, MilOutput
from wsi_pipeline.mil.models.zoo import build_model
from wsi_pipeline.mil.training.training_run import Epoch, Fitted


class Committee(MilModel):
    """Models of the same kind; logits, attention and contributions are the means over the members.

    Each member standardises features itself; `feature_mean` and `feature_std` are means over the members.
    """

    def __init__(self, members: Sequence[MilModel]) -> None:
        super().__init__(nn.ModuleList(members), members[0].in_dim, members[0].n_outputs)
        with torch.no_grad():
            self.set_standardisation(
                torch.stack([member.feature_mean for member in members]).mean(0),
                torch.stack([member.feature_std for member in members]).mean(0),
            )

    @property
    def members(self) -> list[MilModel]:
        """The models."""
        return [cast(MilModel, member) for member in cast(nn.ModuleList, self.network)]

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Mean logits (B, C) and attention (sum N,), without auxiliary losses: only its members are trained."""
        outputs = [member(features, offsets) for member in self.members]
        logits = torch.stack([output.logits for output in outputs]).mean(0)
        return MilOutput(logits, torch.stack([output.attention for output in outputs]).mean(0))

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """What each instance contributes to each mean logit, (sum N, C)."""
        return torch.stack([member.contributions(features, offsets) for member in self.members]).mean(0)


def build(spec: MilSpec, in_dim: int, n_outputs: int) -> MilModel:
    """A new model for one fold: a committee if `spec.committee` is above 1."""
    if spec.committee == 1:
        return build_model(spec, in_dim, n_outputs)
    return Committee([build_model(spec, in_dim, n_outputs) for _ in range(spec.committee)])


def joined(members: Sequence[Fitted]) -> Fitted:
    """The members of one outer fold as one result: median best epoch, losses averaged over members still training."""
    if len(members) == 1:
        return members[0]
    epochs = [
        [member.history[number] for member in members if number < len(member.history)]
        for number in range(max(len(member.history) for member in members))
    ]
    history = tuple(
        Epoch(number, fmean(epoch.train_loss for epoch in each), _mean_val([epoch.val_loss for epoch in each]))
        for number, each in enumerate(epochs, 1)
    )
    best = round(median(member.best_epoch for member in members))
    return Fitted(Committee([member.model for member in members]).eval(), best, history)


def _mean_val(losses: Sequence[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return fmean(known) if known else None
