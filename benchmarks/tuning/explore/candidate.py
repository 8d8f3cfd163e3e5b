"""A vision transformer with every part that the search tried: prompts, gates, a refine module per layer, LoRA.

Only what won is in `pathotune`; this module keeps the others so that the table of what was tried can be made again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pathotune.prompts import prompt_bound

TEXT_CHANNELS = 8


@dataclass(frozen=True)
class Spec:
    """One design and how it is trained. Rates are peak learning rates of the groups of parameters."""

    entry: int = 0
    tvp: int = 10
    ttp: int = 8
    ivp: int = 2
    deep_ttp: bool = False
    start: str = "vpt"  # vpt, or tokens: prototypes of the layer's tokens, at VPT's scale
    gate: float | None = None  # log-bias of prompts in the attention at the start; learned per layer, head and kind
    vrm: int = 0  # rank of the refine module of each layer; 0: IVP are free tokens
    conv: bool = True
    refine: bool = False
    refine_from: int | None = None  # first layer with a refine module; None: entry
    pool: str = "rank"  # what IVP are made of: rank (the module's states), tokens (the layer's tokens), both
    lora: int = 0
    full: bool = False
    decay: float = 1.0  # of the rate from layer to layer, for `full`
    readout: str = "cls"  # cls; and mean: mean patch; ivp: mean output of IVP; made: mean IVP of the last layer
    optimizer: str = "adamw"
    rates: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 1e-2
    warmup: float = 0.1
    ema: float = 0.0
    drop: float = 0.0
    epochs: int = 5
    batch: int = 32
    free: bool = False  # IVP without the image
    fast: bool = False  # prompts of a layer as keys and values alone: nothing reads their outputs (deep TTP)
    base: bool = False  # TTP of each layer start at tokens of their own, to which the text is added
    place: str = "post"  # of the correction: post (after the attention), or pre (before the block)
    film: bool = False  # the text scales and shifts the channels of each refine module (Perez et al. 2018)
    bilinear: int = 0  # TVP of a layer as the product of two matrices of this rank, both trained
    whiten: bool = False  # trained TVP are multiplied by the square root of the covariance of their layer's tokens


class LayerRefine(nn.Module):
    """Bottleneck, 3x3 convolution over the grid, and back: makes instance tokens and a zero-started correction."""

    def __init__(self, dim: int, rank: int, spec: Spec, bound: float) -> None:
        super().__init__()
        self.spec = spec
        if spec.film:
            self.film = nn.Linear(TEXT_CHANNELS, 2 * rank)
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        self.down = nn.Linear(dim, rank)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        if spec.conv:
            self.conv = nn.Linear(9 * rank, rank)
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)
            with torch.no_grad():
                self.conv.weight[:, 4 * rank : 5 * rank] += torch.eye(rank)
        if spec.ivp:
            self.start = nn.Parameter(torch.empty(spec.ivp, dim).uniform_(-bound, bound))
            if not spec.free:
                self.look = nn.Linear(rank, spec.ivp, bias=False)
                if spec.pool in ("rank", "both"):
                    self.tok = nn.Linear(rank, dim)
                    nn.init.normal_(self.tok.weight, std=bound / math.sqrt(3 * rank))
                    nn.init.zeros_(self.tok.bias)
                if spec.pool in ("tokens", "both"):
                    self.scale = nn.Parameter(torch.full((spec.ivp, dim), bound / math.sqrt(3)))
        if spec.refine:
            self.up = nn.Linear(rank, dim)
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(
        self, normed: Tensor, prefix: int, text: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Tokens (B, n, C) or None, corrections of [CLS] (B, 1, C) and of the image tokens (B, N, C) or None.

        text   TEXT_CHANNELS values made of the sentence, for `film`
        """
        image = normed[:, prefix:]
        h = self.down(torch.cat([normed[:, :1], image], 1))
        if self.spec.film:
            scale, shift = self.film(text).chunk(2, -1)
            h = h * (1 + scale) + shift
        h = F.gelu(h)
        cls, maps = h[:, :1], h[:, 1:]
        if self.spec.conv:
            batch, count, rank = maps.shape
            side = math.isqrt(count)
            padded = F.pad(maps.reshape(batch, side, side, rank), (0, 0, 1, 1, 1, 1))
            near = torch.cat([padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3)], -1)
            maps = F.gelu(self.conv(near.reshape(batch, count, 9 * rank)))
            cls = F.gelu(F.linear(cls, self.conv.weight[:, 4 * rank : 5 * rank], self.conv.bias))
        tokens = None
        if self.spec.ivp:
            tokens = self.start.expand(len(normed), -1, -1)
            if not self.spec.free:
                weights = self.look(maps).softmax(1).transpose(1, 2)
                if hasattr(self, "tok"):
                    tokens = tokens + self.tok(weights @ maps)
                if hasattr(self, "scale"):
                    tokens = tokens + self.scale * (weights @ image)
        if not self.spec.refine:
            return tokens, None, None
        return tokens, self.up(cls), self.up(maps)


class Candidate(nn.Module):
    """`lower` gives the tokens that enter at `spec.entry`, without gradients; `upper` the logits from there."""

    def __init__(self, vit: Any, spec: Spec, classes: int, states: Tensor) -> None:
        super().__init__()
        self.spec, self.vit = spec, vit
        vit.requires_grad_(spec.full)
        dim, self.depth, self.heads = vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads
        self.dim = dim
        self.bound = prompt_bound(int(vit.patch_embed.patch_size[0]), dim)
        layers = self.depth - spec.entry
        if spec.tvp:
            self.tvp = nn.Parameter(
                torch.empty(layers, spec.tvp, spec.bilinear or dim).uniform_(-self.bound, self.bound)
            )
        if spec.bilinear:
            self.tvp_out = nn.Parameter(torch.empty(layers, spec.bilinear, dim))
            nn.init.normal_(self.tvp_out, std=1 / math.sqrt(spec.bilinear))
        if spec.whiten:
            self.register_buffer("roots", torch.eye(dim).repeat(layers, 1, 1))
        if spec.ttp:
            self.register_buffer("states", F.layer_norm(states, states.shape[-1:]))
            self.project = nn.Linear(states.shape[-1], dim)
            nn.init.normal_(self.project.weight, std=self.bound / math.sqrt(3 * states.shape[-1]))
            nn.init.zeros_(self.project.bias)
            if spec.base:
                self.base = nn.Parameter(torch.empty(layers, spec.ttp, dim).uniform_(-self.bound, self.bound))
        if spec.film:
            self.project_film = nn.Linear(states.shape[-1], TEXT_CHANNELS)
        self.prompts = spec.tvp + spec.ttp + spec.ivp
        if spec.vrm:
            self.vrm = nn.ModuleList(LayerRefine(dim, spec.vrm, spec, self.bound) for _ in range(layers))
        elif spec.ivp:
            self.ivp_start = nn.Parameter(torch.empty(layers, spec.ivp, dim).uniform_(-self.bound, self.bound))
        if spec.gate is not None:
            self.gate = nn.Parameter(torch.full((layers, self.heads, 3), float(spec.gate)))
        if spec.lora:
            for block in vit.blocks[spec.entry :]:
                block.attn.qkv = Lora(block.attn.qkv, spec.lora)
        self.head = nn.Linear(dim * (1 if spec.readout == "cls" else 2), classes)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        for block in vit.blocks:
            block.attn.fused_attn = False

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that require gradients."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def lower(self, images: Tensor) -> Tensor:
        """Sequence (B, 1 + N, C) before layer `entry`."""
        vit = self.vit
        with torch.set_grad_enabled(self.spec.full):
            sequence = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
            for block in vit.blocks[: self.spec.entry]:
                sequence = block(sequence)
        return sequence

    def features(self, sequence: Tensor, roll: bool = False) -> Tensor:
        """What the head reads; with `roll`, instance tokens of the neighbour in the batch."""
        if self.spec.fast:
            return self._fast(sequence, roll)
        spec, vit, batch = self.spec, self.vit, len(sequence)
        drop = lambda tokens: F.dropout(tokens, spec.drop, self.training)  # noqa: E731
        places = (1 + spec.tvp, 1 + spec.tvp + spec.ttp, 1 + self.prompts)
        text = drop(self.project(self.states)).expand(batch, -1, -1) if spec.ttp else None
        for number in range(self.depth - spec.entry):
            block = vit.blocks[spec.entry + number]
            first = number == 0
            image = sequence[:, 1:] if first else sequence[:, places[2] :]
            tokens, add = None, (None, None)
            if spec.vrm:
                normed = block.norm1(torch.cat([sequence[:, :1], image], 1))
                tokens, *add = self.vrm[number](normed, 1)
            elif spec.ivp:
                tokens = self.ivp_start[number].expand(batch, -1, -1)
            parts = [sequence[:, :1]]
            if spec.tvp:
                parts.append(drop(self.tvp[number]).expand(batch, -1, -1).to(sequence.dtype))
            if text is not None:
                old = sequence[:, places[0] : places[1]]
                parts.append((text if first or spec.deep_ttp else old).to(sequence.dtype))
            if tokens is not None:
                if roll:
                    tokens = tokens.roll(1, 0)
                parts.append(drop(tokens).to(sequence.dtype))
            if spec.place == "pre" and add[0] is not None:
                parts[0], image, add = parts[0] + add[0], image + add[1], (None, None)
            sequence = torch.cat([*parts, image], 1)
            out = block.attn(block.norm1(sequence), attn_mask=self._mask(number, sequence.shape[1]))
            sequence = sequence + block.ls1(out)
            if add[0] is not None:
                gap = sequence[:, 1 : places[2]]
                sequence = torch.cat([sequence[:, :1] + add[0], gap, sequence[:, places[2] :] + add[1]], 1)
            sequence = sequence + block.ls2(block.mlp(block.norm2(sequence)))
        sequence = vit.norm(sequence)
        if spec.readout == "cls":
            return sequence[:, 0]
        rest = sequence[:, places[2] :] if spec.readout == "mean" else sequence[:, places[1] : places[2]]
        return torch.cat([sequence[:, 0], rest.mean(1)], 1)

    def _fast(self, sequence: Tensor, roll: bool) -> Tensor:
        """The same function for prompts that are new in each layer, without what is thrown away."""
        spec, vit = self.spec, self.vit
        text = self.project(self.states) if spec.ttp else None
        sentence = self.project_film(self.states.mean((0, 1))) if spec.film else None
        for number in range(self.depth - spec.entry):
            block = vit.blocks[spec.entry + number]
            last = spec.readout in ("cls", "made") and spec.entry + number == self.depth - 1
            normed = block.norm1(sequence)
            parts = [self._task_visual(number)[None]] if spec.tvp else []
            parts += [text if spec.base is False else text + self.base[number]] if text is not None else []
            if spec.vrm:
                tokens, cls, image = self.vrm[number](normed, 1, sentence)
                if tokens is not None:
                    tokens = tokens.roll(1, 0) if roll else tokens
                    parts.append(tokens)
                if cls is not None:
                    change = torch.cat([cls, image], 1)
                    if spec.place == "pre":
                        sequence = sequence + change
                        normed = block.norm1(sequence)
            bias = self._mask(number, 1 + self.prompts)
            if last:
                sequence = sequence[:, :1]
            if spec.vrm and spec.refine and spec.place == "post":
                sequence = sequence + change[:, : sequence.shape[1]]
            kept = [F.dropout(part, spec.drop, self.training) for part in parts]
            out = attend(block.attn, normed, [block.norm1(part) for part in kept], 1 if last else None, bias)
            sequence = sequence + block.ls1(out)
            sequence = sequence + block.ls2(block.mlp(block.norm2(sequence)))
        sequence = vit.norm(sequence)
        if spec.readout == "cls":
            return sequence[:, 0]
        if spec.readout == "made":
            return torch.cat([sequence[:, 0], vit.norm(tokens).mean(1)], 1)
        return torch.cat([sequence[:, 0], sequence[:, 1:].mean(1)], 1)

    def _task_visual(self, number: int) -> Tensor:
        """TVP of a layer (n, C)."""
        tokens = self.tvp[number]
        if self.spec.bilinear:
            tokens = tokens @ self.tvp_out[number]
        return tokens @ self.roots[number] if self.spec.whiten else tokens

    def forward(self, sequence: Tensor, roll: bool = False) -> Tensor:
        """Logits."""
        return self.head(self.features(sequence, roll))

    def _mask(self, number: int, length: int) -> Tensor | None:
        if self.spec.gate is None:
            return None
        spec = self.spec
        kinds = torch.tensor([0] * spec.tvp + [1] * spec.ttp + [2] * spec.ivp)
        bias = self.gate[number][:, kinds]
        return F.pad(bias, (1, length - 1 - self.prompts)).view(1, self.heads, 1, length)

    @torch.no_grad()
    def prototypes(self, sequence: Tensor, generator: torch.Generator) -> None:
        """TVP and starts of IVP become tokens of the layer, standardised to VPT's scale."""
        for number in range(self.depth - self.spec.entry):
            pool = sequence[:, 1:].flatten(0, 1).float()
            pool = pool[torch.randperm(len(pool), generator=generator)]
            pool = (pool - pool.mean(-1, keepdim=True)) / pool.std(-1, keepdim=True) * self.bound / math.sqrt(3)
            if self.spec.whiten:
                self.roots[number].copy_(_root(pool))
            if self.spec.tvp and not self.spec.bilinear and not self.spec.whiten:
                self.tvp[number].copy_(pool[: self.spec.tvp])
            if self.spec.ivp:
                start = self.vrm[number].start if self.spec.vrm else self.ivp_start[number]
                start.copy_(pool[self.spec.tvp : self.spec.tvp + self.spec.ivp])
            if self.spec.base:
                self.base[number].copy_(pool[-self.spec.ttp :])
            sequence = self.vit.blocks[self.spec.entry + number](sequence)


def _root(rows: Tensor) -> Tensor:
    """Square root of the covariance of rows (n, C), scaled so that white rows keep their length in the mean."""
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    values = values.clamp_min(0)
    return vectors @ (values / values.mean()).sqrt().diag() @ vectors.T


def attend(layer: Any, normed: Tensor, prompts: list[Tensor], queries: int | None, bias: Tensor | None) -> Tensor:
    """Attention of the first `queries` tokens (all for None) to all tokens and prompts; tokens (B, T, C)."""
    batch, count, dim = normed.shape
    heads = layer.num_heads

    def split(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)

    weight, offset = layer.qkv.weight, layer.qkv.bias
    if queries is None:
        q, k, v = layer.qkv(normed).chunk(3, -1)
    else:
        q = F.linear(normed[:, :queries], weight[:dim], offset[:dim])
        k, v = F.linear(normed, weight[dim:], offset[dim:]).chunk(2, -1)
    pairs = [F.linear(part, weight[dim:], offset[dim:]).expand(batch, -1, -1).chunk(2, -1) for part in prompts]
    k, v = (split(torch.cat([whole, *(pair[i] for pair in pairs)], 1)) for i, whole in ((0, k), (1, v)))
    scores = split(q) * layer.scale @ k.transpose(-2, -1)
    if bias is not None:
        scores[..., count:] += bias[..., 1:]
    out = scores.softmax(-1).to(v.dtype) @ v
    return layer.proj(out.transpose(1, 2).reshape(batch, -1, dim))


class Lora(nn.Module):
    """A linear layer with a low-rank update that starts at zero, scaled by 2 (alpha = 2 rank, as in the library)."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner
        self.a = nn.Parameter(torch.empty(rank, inner.in_features))
        self.b = nn.Parameter(torch.zeros(inner.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """The layer with its update."""
        return self.inner(x) + 2.0 * F.linear(F.linear(x, self.a), self.b)

    @property
    def weight(self) -> Tensor:
        """The updated matrix, for `attend`, which uses parts of it."""
        return self.inner.weight + 2.0 * self.b @ self.a

    @property
    def bias(self) -> Tensor:
        """That of the layer."""
        return self.inner.bias
