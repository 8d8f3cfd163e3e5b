"""A layer of the backbone that new prompts enter: only their keys and values are computed.

If each layer has its own prompts, the outputs of the previous layer's prompts are discarded. Not computing them gives
the same result in two thirds of the time, and prompts that are the same for all images cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import cast

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from pathotune.backbone import Backbone


def can_be_keyed(vit: Backbone) -> bool:
    """Whether all layers are of the kind that `layer_with_keys` computes: timm's own block and attention."""
    return all(
        type(block) is Block
        and type(block.attn) is Attention
        and type(block.attn.qkv) is nn.Linear
        and getattr(block.attn, "gate", None) is None
        for block in vit.blocks
    )


def layer_with_keys(
    block: Block,
    tokens: Tensor,
    normed: Tensor,
    prompts: Sequence[Tensor],
    correction: Tensor | None,
    queries: int | None = None,
) -> Tensor:
    """The first `queries` tokens (None: all) after a layer whose input sequence contained prompts.

    `tokens` (B, T, C) are those of the backbone, `normed` the same after the layer's first norm; each of `prompts` is
    (B, n, C), or (1, n, C) if all images share it. `correction` (B, T, C) is added alongside attention.
    """
    together = [torch.cat(list(run), dim=1) for _, run in groupby(prompts, key=len)]
    attention = cast(Attention, block.attn)
    out = block.ls1(_attend(attention, normed, [block.norm1(prompt) for prompt in together], queries))
    tokens = tokens[:, :queries] + out
    if correction is not None:
        tokens = tokens + correction[:, :queries]
    return tokens + block.ls2(block.mlp(block.norm2(tokens)))  # type: ignore[no-any-return]


def layer_with_correction(block: Block, sequence: Tensor, correction: Tensor) -> Tensor:
    """A whole sequence (B, T, C) after a layer, with `correction` (B, T, C) added alongside attention."""
    sequence = sequence + block.ls1(block.attn(block.norm1(sequence))) + correction
    return sequence + block.ls2(block.mlp(block.norm2(sequence)))  # type: ignore[no-any-return]


def _attend(layer: Attention, normed: Tensor, prompts: Sequence[Tensor], queries: int | None) -> Tensor:
    """Attention of the first tokens (B, T, C) to all tokens and prompts; what timm's Attention does in eval mode."""
    batch, width = len(normed), layer.qkv.out_features // 3
    if queries is None:
        query, key, value = layer.qkv(normed).chunk(3, dim=-1)
    else:
        query = _project(layer.qkv, normed[:, :queries], slice(None, width))
        key, value = _project(layer.qkv, normed, slice(width, None)).chunk(2, dim=-1)
    pairs = [_project(layer.qkv, prompt, slice(width, None)).expand(batch, -1, -1).chunk(2, -1) for prompt in prompts]
    key = torch.cat([key, *(pair[0] for pair in pairs)], dim=1)
    value = torch.cat([value, *(pair[1] for pair in pairs)], dim=1)
    query, key, value = (_heads(part, layer.num_heads) for part in (query, key, value))
    query, key = layer.q_norm(query), layer.k_norm(key)
    if layer.fused_attn:
        out = F.scaled_dot_product_attention(query, key, value)
    else:
        out = (query * layer.scale @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    return layer.proj(layer.norm(out.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]


def _project(layer: nn.Linear, tokens: Tensor, rows: slice) -> Tensor:
    """Compute only some outputs of a linear layer."""
    return F.linear(tokens, layer.weight[rows], None if layer.bias is None else layer.bias[rows])


def _heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, T, C) -> (B, heads, T, C / heads)."""
    return tokens.view(*tokens.shape[:-1], heads, -1).transpose(1, 2)
