"""TransMIL: Shao et al., "TransMIL: Transformer based correlated multiple instance learning", 2021."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, MilOutput, apply_head, head, projection
from wsi_pipeline.mil.models.nystrom import NystromAttention
from wsi_pipeline.mil.models.ragged import segment_uniform

_HEADS = 8
_KERNELS = (7, 5, 3)


class PositionModule(nn.Module):
    """PPEG: instances laid out as a square image, plus depthwise convolutions of three sizes over it.

    The order of the instances decides which are neighbours; nowhere else does it matter.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim) for k in _KERNELS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (s * s, dim) -> the same shape."""
        side = math.isqrt(len(tokens))
        image = tokens.t().reshape(1, -1, side, side)
        mixed = sum((convolution(image) for convolution in self.convolutions), image)
        return mixed[0].flatten(1).t()


class Layer(nn.Module):
    """Pre-norm self-attention with a residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = NystromAttention(dim, math.gcd(dim, _HEADS), max(1, dim // 2))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (n, dim) -> (n, dim)."""
        return tokens + self.attention(self.norm(tokens))  # type: ignore[no-any-return]


@MIL_MODELS.register("transmil")
class TransMil(nn.Module):
    """Class token and instances through two layers with the position module between, bag by bag.

    n instances become s * s tokens, s = ceil(sqrt(n)), by repeating the first ones, as in the paper. The attention of
    an instance is that of the class token in the second layer: averaged over heads, negative values (from the
    pseudo-inverse) set to 0, repeated tokens added to their instance, scaled to sum 1. In training, where it is not
    used, it is uniform. An empty bag is the class token alone.
    """

    def __init__(self, in_dim: int, n_outputs: int, spec: MilSpec) -> None:
        super().__init__()
        self.projection = projection(in_dim, spec)
        self.class_token = nn.Parameter(torch.randn(1, spec.hidden_dim) * 0.02)
        self.first = Layer(spec.hidden_dim)
        self.position = PositionModule(spec.hidden_dim)
        self.second = Layer(spec.hidden_dim)
        self.norm = nn.LayerNorm(spec.hidden_dim)
        self.head = head(n_outputs, spec)

    def forward(self, features: Tensor, offsets: Tensor, targets: Tensor | None = None) -> MilOutput:
        """Features (sum N, D), offsets (B + 1) -> logits (B, C), attention (sum N,)."""
        bags = torch.split(self.projection(features), offsets.diff().tolist())
        between = [self._between(bag) for bag in bags]
        embeddings = [self.norm(self.second(tokens))[0] for tokens in between]
        logits = apply_head(self.head, torch.stack(embeddings))
        if self.training:
            return MilOutput(logits, segment_uniform(offsets.to(features.device)))
        attention = [self._attention(tokens, len(bag)) for tokens, bag in zip(between, bags, strict=True)]
        return MilOutput(logits, torch.cat(attention))

    def contributions(self, features: Tensor, offsets: Tensor) -> Tensor:
        """First order: the gradient of each logit times the projected instance, (sum N, C)."""
        with torch.enable_grad():
            instances = self.projection(features.detach()).detach().requires_grad_()
            shares = []
            for bag in torch.split(instances, offsets.diff().tolist()):
                logits = self.head(self.norm(self.second(self._between(bag)))[:1])[0]
                gradients = [torch.autograd.grad(value, bag, retain_graph=True)[0] for value in logits]
                shares.append(torch.stack([(gradient * bag).sum(1) for gradient in gradients], 1).detach())
        return torch.cat(shares)

    def _between(self, bag: Tensor) -> Tensor:
        """Tokens after the first layer and the position module, (1 + s * s, H), the class token first."""
        side = math.isqrt(max(0, len(bag) - 1)) + 1 if len(bag) else 0
        tokens = torch.cat([self.class_token.to(bag.dtype), bag, bag[: side * side - len(bag)]])
        tokens = self.first(tokens)
        return torch.cat([tokens[:1], self.position(tokens[1:])]) if side else tokens

    @torch.no_grad()
    def _attention(self, tokens: Tensor, n: int) -> Tensor:
        """Attention (n,) of the instances of one bag."""
        every = self.second.attention.attention_of_first(self.second.norm(tokens))[1:].clamp(min=0)
        own = every[:n].clone()
        own[: len(every) - n] += every[n:]
        total = own.sum()
        return own / total if total > 0 else torch.full_like(own, 1 / max(1, n))
