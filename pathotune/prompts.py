"""The three kinds of prompt. Each makes (B, n, D) for a layer and trains all its parameters; the rest are buffers.

Position embeddings are not added to prompts (as in VPT). At initialisation every prompt number has the variance of
VPT's uniform law in +-sqrt(6 / (3 p^2 + C)) (p: patch side in pixels, C: width of the ViT), the law by which the ViT
itself would initialise its patch projection. Sources: Jia et al. 2022, arXiv 2203.12119; Lu et al. 2024, arXiv
2403.16497.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pathotune.errors import ConfigError
from pathotune.refine import VisualRefineModule


def prompt_bound(patch_px: int, dim: int) -> float:
    """Half-width of the uniform law by which VPT initialises prompts."""
    return math.sqrt(6.0 / (3 * patch_px**2 + dim))


class TaskVisualPrompts(nn.Module):
    """TVP: learned tokens (layers, n, D), the same for every image. `layers` is 1 (shallow) or the ViT's depth."""

    def __init__(self, layers: int, tokens: int, dim: int, bound: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(layers, tokens, dim).uniform_(-bound, bound))

    @property
    def layers(self) -> int:
        """How many layers have tokens of their own."""
        return self.tokens.shape[0]

    def forward(self, batch: int, layer: int = 0) -> Tensor:
        """The tokens before a layer: (B, n, D)."""
        return self.tokens[layer].expand(batch, -1, -1)


class TaskTextualPrompts(nn.Module):
    """TTP: cached states of a frozen text encoder (tasks, n, H), brought to the ViT's width by a trained linear map.

    States are standardised over H before the map, so that encoders of any scale start alike.
    """

    states: Tensor

    def __init__(self, states: Tensor, dim: int, bound: float) -> None:
        super().__init__()
        self.register_buffer("states", states.detach().clone().float())
        hidden = states.shape[-1]
        self.project = nn.Linear(hidden, dim)
        nn.init.normal_(self.project.weight, std=bound / math.sqrt(3 * hidden))
        nn.init.zeros_(self.project.bias)

    def forward(self, batch: int, task: Tensor | None = None) -> Tensor:
        """Tokens (B, n, D). `task` (B,), int64, says which task's text each image takes; None: the only one."""
        tokens: Tensor = self.project(F.layer_norm(self.states, self.states.shape[-1:]))
        if task is not None:
            return tokens[task]
        if tokens.shape[0] != 1:
            raise ConfigError(f"task must be given: this model was made for {tokens.shape[0]} tasks")
        return tokens.expand(batch, -1, -1)


class InstanceVisualPrompts(nn.Module):
    """IVP: tokens made from each image by the Visual Refine Module, added to a learned start.

    The start tells the tokens apart; without the image they would be n more task tokens. With more than one layer each
    has a start (layers, n, D) and a scale (layers, 1, D) of its own, since what one layer reads another does not.
    """

    def __init__(
        self,
        source: str,
        tokens: int,
        dim: int,
        width: int,
        bound: float,
        *,
        layers: int = 1,
        calibrated: bool = False,
    ) -> None:
        super().__init__()
        shape = (tokens, dim) if layers == 1 else (layers, tokens, dim)
        self.start = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.ones(layers, 1, dim)) if layers > 1 else None
        self.refine = VisualRefineModule(source, tokens, dim, width, bound / math.sqrt(3), calibrated=calibrated)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), or patch embeddings (B, D, h, w), to tokens (layers, B, n, D)."""
        refined: Tensor = self.refine(images)
        if self.scale is None:
            return (self.start + refined).unsqueeze(0)
        return self.start.unsqueeze(1) + self.scale.unsqueeze(1) * refined
