"""The Visual Refine Module: a small convolutional network that turns an image into a few tokens.

The authors' module is not public. This one uses depthwise-separable convolutions, which capture texture with few
parameters; one attention map per token, so that tokens can attend to different places; and a separate path for the mean
of the first, unnormalised maps, because the normalised stages lose the strength of the stain.
Idea: Lu et al. 2024, arXiv 2403.16497 (2 tokens per image from a "Visual Refine Module").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class VisualRefineModule(nn.Module):
    """Images (B, 3, H, W), normalised, or patch embeddings (B, D, h, w) -> tokens (B, n, D).

    `source` is `pixels` (maps at 1/16 of the image's resolution) or `patches` (maps on the patch grid). No layer mixes
    images or keeps running statistics, so the tokens of an image do not depend on its batch. `scale` is the approximate
    standard deviation of tokens at initialisation. With `calibrated`, descriptions of images are standardised before
    they are projected to tokens: see `calibrate`.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, source: str, tokens: int, dim: int, width: int, scale: float, *, calibrated: bool = False
    ) -> None:
        super().__init__()
        quarter, half = width // 4, width // 2
        if source == "pixels":
            # One stride of 4 takes less than a third of the time of two strides of 2, with as many parameters.
            stem: nn.Module = nn.Conv2d(3, quarter, 7, stride=4, padding=3)
            steps = [(quarter, half, 2), (half, width, 2), (width, width, 1)]
        else:
            stem = nn.Conv2d(dim, quarter, 1)
            steps = [(quarter, width, 1), (width, width, 1)]
        self.stem = nn.Sequential(stem, nn.GELU())
        self.trunk = nn.Sequential(*(layer for step in steps for layer in _separable(*step)))
        # No bias: softmax ignores a constant added to all scores of a token.
        self.look = nn.Conv1d(width, tokens, 1, bias=False)
        self.norm = nn.LayerNorm(width)
        self.calibrated = calibrated
        if calibrated:
            self.register_buffer("centre", torch.zeros(width + quarter))
            self.register_buffer("spread", torch.ones(width + quarter))
        self.out = nn.Linear(width + quarter, dim)
        nn.init.normal_(self.out.weight, std=scale / width**0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, n, D)."""
        found = self.describe(images)
        if self.calibrated:
            found = (found.float() - self.centre) / self.spread
        tokens: Tensor = self.out(found)
        return tokens

    def describe(self, images: Tensor) -> Tensor:
        """Descriptions of images where each token attends, before projection: (B, n, width + width / 4)."""
        first = self.stem(images)
        maps = self.trunk(first).flatten(2)
        pooled = self.norm(torch.einsum("bnp,bcp->bnc", self.look_weights(maps), maps))
        strength = first.mean(dim=(2, 3)).unsqueeze(1).expand(-1, pooled.shape[1], -1)
        return torch.cat([pooled, strength], dim=2)

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set mean and standard deviation of the descriptions from images (B, ...) of the task; call once.

        Untrained convolutions describe all images almost alike: without calibration, the image contributes a tenth of
        a token's magnitude, and the ViT learns to ignore it. The statistics do not change afterwards. Idea: Kingma and
        Dhariwal 2018, arXiv 1807.03039 (data-dependent initialisation).
        """
        if not self.calibrated:
            return
        found = self.describe(images).float().flatten(0, 1)
        self.centre.copy_(found.mean(dim=0))
        self.spread.copy_(found.std(dim=0, correction=0).clamp_min(1e-4))

    def look_weights(self, maps: Tensor) -> Tensor:
        """Attention of each token over positions: (B, width, P) -> (B, n, P); rows sum to 1."""
        scores: Tensor = self.look(maps)
        return scores.softmax(dim=-1)


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1),
        nn.GroupNorm(1, outputs),
        nn.GELU(),
    ]


class LayerRefineModule(nn.Module):
    """Reads the tokens of one layer; produces its instance prompts and a correction of its tokens.

    A projection to `rank` channels, a 3x3 convolution over the patch grid, and two ways back: attention over the maps
    pools maps and tokens into n prompts, and a projection that starts at zero gives the correction added to the class,
    register and patch tokens alongside the layer's attention. At the start the correction is zero, and the convolution
    is the identity.
    The correction is that of Jie and Deng 2022 (arXiv 2207.07039, Convpass).
    """

    def __init__(self, dim: int, rank: int, tokens: int, bound: float) -> None:
        super().__init__()
        self.down = nn.Linear(dim, rank)
        self.near = nn.Conv2d(rank, rank, 3, padding=1)
        self.up = nn.Linear(rank, dim)
        self.start = nn.Parameter(torch.empty(tokens, dim).uniform_(-bound, bound))
        # No bias: softmax ignores a constant added to all scores of a prompt.
        self.look = nn.Linear(rank, tokens, bias=False)
        self.out = nn.Linear(rank, dim)
        self.scale = nn.Parameter(torch.full((tokens, dim), bound / 3**0.5))
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.near.weight)
        nn.init.zeros_(self.up.weight)
        nn.init.normal_(self.out.weight, std=bound / (3 * rank) ** 0.5)
        for bias in (self.down.bias, self.near.bias, self.up.bias, self.out.bias):
            nn.init.zeros_(bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.near.weight[:, :, 1, 1] = torch.eye(rank)

    def forward(self, normed: Tensor, prefix: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Instance prompts (B, n, D), and the correction added to the tokens (B, prefix + N, D).

        `normed`: the tokens after the layer's first norm, `prefix` of them before the N patches, which lie on `grid`.
        """
        narrow = F.gelu(self.down(normed))
        # A token without neighbours is multiplied by the centre of the convolution only.
        others = F.linear(narrow[:, :prefix], self.near.weight[:, :, 1, 1], self.near.bias)
        states = F.gelu(torch.cat([others, self._convolved(narrow[:, prefix:], grid)], dim=1))
        scores = (self.look.weight @ states.transpose(1, 2))[:, :, prefix:]
        places = F.pad(scores.softmax(dim=-1), (prefix, 0))
        prompts = self.start + self.out(places @ states) + self.scale * (places @ normed)
        return prompts, self.up(states)

    def _convolved(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """The convolution of maps (B, h w, rank) over their grid (h, w)."""
        found: Tensor = self.near(maps.reshape(len(maps), *grid, -1).permute(0, 3, 1, 2))
        return found.flatten(2).transpose(1, 2)
