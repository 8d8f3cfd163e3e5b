"""The three kinds of prompts. Each module returns (B, n, D) for a layer; all its parameters are trained.

Position embeddings are not added to prompts (as in VPT). At initialisation every element of a prompt has the variance
of VPT's uniform distribution over +-sqrt(6 / (3 p^2 + C)) (p: patch side in pixels, C: width of the ViT), the Xavier
initialisation of a ViT's patch projection. Sources: Jia et al. 2022, arXiv 2203.12119; Lu et al. 2024, arXiv
2403.16497.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pathotune.errors import ConfigError
from pathotune.refine import LayerRefineModule, VisualRefineModule


def prompt_bound(patch_px: int, dim: int) -> float:
    """Half-width of the uniform distribution from which VPT initialises prompts."""
    return math.sqrt(6.0 / (3 * patch_px**2 + dim))


class TaskVisualPrompts(nn.Module):
    """TVP: learned tokens (layers, n, D), the same for all images. `layers` is 1 (shallow) or the depth of the ViT."""

    def __init__(self, layers: int, tokens: int, dim: int, bound: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(layers, tokens, dim).uniform_(-bound, bound))

    @property
    def layers(self) -> int:
        """Number of layers that have tokens."""
        return self.tokens.shape[0]

    def forward(self, batch: int, layer: int = 0) -> Tensor:
        """The tokens that enter at a layer: (B, n, D)."""
        return self.tokens[layer].expand(batch, -1, -1)


class TextualPrompts(nn.Module):
    """TTP (B, n, D) of a layer, from tokens of each task's text; with `tokens` (layers, n, D), each layer adds its own.

    `TaskTextualPrompts` computes the text's tokens from a text encoder's states, `StoredTextualPrompts` holds them.
    """

    tokens: nn.Parameter | None

    def text_tokens(self) -> Tensor:
        """The tokens of each task's text, (tasks, n, D)."""
        raise NotImplementedError

    def forward(self, batch: int, task: Tensor | None = None, layer: int = 0) -> Tensor:
        """Tokens (B, n, D). `task` (B,), int64, selects the text of each image; None if there is only one."""
        tokens = self.text_tokens()
        if self.tokens is not None:
            tokens = tokens + self.tokens[layer]
        if task is not None:
            return tokens[task]
        if tokens.shape[0] != 1:
            raise ConfigError(f"task must be given: this model serves {tokens.shape[0]} tasks")
        return tokens.expand(batch, -1, -1)


class TaskTextualPrompts(TextualPrompts):
    """TTP: cached states of a frozen text encoder (tasks, n, H) projected to the ViT's width by a trained linear layer.

    States are standardised over H first, so that the scale of the encoder does not matter. With `layers`, each layer
    has offsets of its own, `tokens` (layers, n, D), to which the projected text is added; states then have length 1, so
    that an optimiser step moves these prompts about as far as others.
    """

    states: Tensor

    def __init__(self, states: Tensor, dim: int, bound: float, layers: int = 0) -> None:
        super().__init__()
        self.register_buffer("states", states.detach().clone().float())
        hidden = states.shape[-1]
        self.project = nn.Linear(hidden, dim)
        self.tokens = nn.Parameter(torch.zeros(layers, states.shape[1], dim)) if layers else None
        nn.init.normal_(self.project.weight, std=bound / math.sqrt(3 if layers else 3 * hidden))
        nn.init.zeros_(self.project.bias)

    def text_tokens(self) -> Tensor:
        """The projected states, (tasks, n, D)."""
        hidden = self.states.shape[-1]
        states = F.layer_norm(self.states, (hidden,))
        found: Tensor = self.project(states if self.tokens is None else states / math.sqrt(hidden))
        return found

    @torch.no_grad()
    def stored(self) -> StoredTextualPrompts:
        """The same prompts without the projection: all that a finished model needs, usually a fraction of its size."""
        return StoredTextualPrompts(self.text_tokens(), None if self.tokens is None else self.tokens.detach())


class StoredTextualPrompts(TextualPrompts):
    """TTP of a finished model: tokens of each task's text, (tasks, n, D), as the projection computed them."""

    def __init__(self, text: Tensor, tokens: Tensor | None) -> None:
        super().__init__()
        self.text = nn.Parameter(text)
        self.tokens = None if tokens is None else nn.Parameter(tokens)

    def text_tokens(self) -> Tensor:
        """The stored tokens, (tasks, n, D)."""
        return self.text


class InstanceVisualPrompts(nn.Module):
    """IVP: the output of the Visual Refine Module for each image, added to learned offsets `start`.

    The offsets differ between tokens; alone they would be n more task prompts. With more than one layer, each has its
    own offsets (layers, n, D) and scale (layers, 1, D), because layers read different directions of the token space.
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


class LayerInstancePrompts(nn.Module):
    """IVP of each layer, produced by the layer's own refine module, which reads and corrects the layer's tokens."""

    def __init__(self, layers: int, tokens: int, dim: int, rank: int, bound: float) -> None:
        super().__init__()
        self.refine = nn.ModuleList(LayerRefineModule(dim, rank, tokens, bound) for _ in range(layers))

    def forward(self, layer: int, normed: Tensor, prefix: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Prompts (B, n, D) of a layer, and the correction of its tokens: see `LayerRefineModule.forward`."""
        found: tuple[Tensor, Tensor] = self.refine[layer](normed, prefix, grid)
        return found


@torch.no_grad()
def start_as_tokens(prompts: Sequence[Tensor], pool: Tensor, bound: float, seed: int) -> None:
    """Set prompts (n, D) of a layer to different tokens of `pool` (M, D), standardised to the variance of prompts.

    Random prompts draw the attention of [CLS] away from the image; tokens like the layer's own do so less. Idea:
    Wang et al. 2024, arXiv 2402.02382.
    """
    chosen = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    for prompt in prompts:
        rows, chosen = chosen[: len(prompt)], chosen.roll(-len(prompt))
        prompt.copy_(F.layer_norm(pool[rows.to(pool.device)].float(), pool.shape[-1:]) * bound / math.sqrt(3))
