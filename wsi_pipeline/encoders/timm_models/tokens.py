"""Which outputs of a timm network make up a feature, and their description: class token, patch tokens, positions.

Tokens come in the order of timm: class token, distillation token, register tokens, patch tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wsi_pipeline.encoders.zoo.facts import CLASS_AND_MEAN
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.wording import counted

_POOLS = {
    "avg": "mean",
    "fast": "mean",
    "fastavg": "mean",
    "max": "maximum",
    "avgmax": "half mean, half maximum",
    "catavgmax": "mean and maximum",
}


@dataclass(frozen=True)
class Tokens:
    """The tokens before a network's patch tokens.

    prefix        tokens before the first patch token
    class_token   whether the first of them is a class token
    distilled     whether the second is a distillation token
    """

    prefix: int
    class_token: bool
    distilled: bool = False

    @property
    def registers(self) -> int:
        """Register tokens, which only serve the network's internal computation."""
        return self.prefix - self.class_token - self.distilled

    def others(self, *, class_token: bool) -> str:
        """`, class token and 4 register tokens left out`; "" if nothing is. `class_token`: whether it is named."""
        named = ["class token"] if class_token and self.class_token else []
        named += ["distillation token"] if self.distilled else []
        named += [counted(self.registers, "register token")] if self.registers else []
        return f", {' and '.join(named)} left out" if named else ""


@dataclass(frozen=True)
class Pooling:
    """How features (B, D) are computed from a network's output.

    kind         own (the network pools), class, mean (of patch tokens), class+mean, or grid (mean of positions)
    description  the same in words
    changed      whether earlier versions of this package pooled in another way: such features get a new fingerprint
    """

    kind: str
    description: str
    tokens: Tokens = Tokens(0, class_token=False)
    channels_last: bool = False
    changed: bool = False

    def __call__(self, network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Features (B, D) of normalised images (B, 3, S, S)."""
        output = network(images)
        if self.kind == "own":
            return torch.as_tensor(output)
        if self.kind == "grid":
            return torch.as_tensor(output).mean(dim=(1, 2) if self.channels_last else (2, 3))
        tokens = output if output.ndim == 3 else _tokens_of(network, images)
        if self.kind == "class":
            return torch.as_tensor(tokens[:, 0])
        mean = tokens[:, self.tokens.prefix :].mean(dim=1)
        return torch.as_tensor(mean if self.kind == "mean" else torch.cat([tokens[:, 0], mean], dim=1))


def read_tokens(network: torch.nn.Module) -> Tokens:
    """The tokens before the patch tokens, according to the network's own attributes."""
    stated = getattr(network, "has_class_token", None)
    found = isinstance(getattr(network, "cls_token", None), torch.Tensor)
    class_token = stated if isinstance(stated, bool) else found
    distilled = class_token and isinstance(getattr(network, "dist_token", None), torch.Tensor)
    prefix = getattr(network, "num_prefix_tokens", None)
    least = int(class_token) + int(distilled)
    return Tokens(max(least, prefix if isinstance(prefix, int) else 0), class_token, distilled)


def choose_pooling(network: torch.nn.Module, images: torch.Tensor, published: str = "") -> Pooling:
    """How to pool this network: as its authors publish it, else as it pools itself, else class token, else mean.

    images      of the size that will be fed; on device `meta` this costs nothing
    published   CLASS_AND_MEAN, or "" for the network's own pooling

    Raises EncoderError for an output that is neither a vector, tokens, nor a grid of positions.
    """
    output = network(images)
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else ()
    if len(shape) not in (2, 3, 4):
        raise EncoderError("it gives no feature vector, no tokens and no grid of positions")
    tokens = read_tokens(network)
    if published == CLASS_AND_MEAN:
        return _class_and_mean(network, images, shape, tokens)
    if len(shape) == 2:
        return Pooling("own", _own_words(network, images, tokens, shape[1]))
    if len(shape) == 4:
        last = getattr(network, "output_fmt", None) == "NHWC"
        height, width = shape[1:3] if last else shape[2:4]
        return Pooling("grid", f"mean of {height} x {width} positions", tokens, channels_last=last, changed=last)
    if tokens.class_token:
        return Pooling("class", "class token", tokens, changed=not getattr(network, "num_prefix_tokens", 0))
    description = f"mean of {counted(shape[1] - tokens.prefix, 'patch token')}{tokens.others(class_token=False)}"
    return Pooling("mean", description, tokens, changed=tokens.prefix > 0)


def _class_and_mean(network: torch.nn.Module, images: torch.Tensor, shape: tuple[int, ...], tokens: Tokens) -> Pooling:
    if not tokens.class_token:
        raise EncoderError("it has no class token, but its published feature is that with the mean of the patch tokens")
    if len(shape) != 3:
        shape = tuple(_tokens_of(network, images).shape)
    patches = counted(shape[1] - tokens.prefix, "patch token")
    description = f"class token + mean of {patches}{tokens.others(class_token=False)}"
    return Pooling(CLASS_AND_MEAN, description, tokens, changed=True)


def _tokens_of(network: Any, images: torch.Tensor) -> torch.Tensor:
    tokens = network.forward_features(images)
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 3:
        raise EncoderError("it gives no tokens")
    return tokens


def _own_words(network: torch.nn.Module, images: torch.Tensor, tokens: Tokens, dim: int) -> str:
    """The network's own pooling, in words."""
    pool = _pool_name(network)
    features: Callable[[torch.Tensor], Any] | None = getattr(network, "forward_features", None)
    inner = features(images) if features is not None else None
    shape = tuple(inner.shape) if isinstance(inner, torch.Tensor) else ()
    if pool == "token":
        return "mean of class token and distillation token" if tokens.distilled else "class token"
    if pool == "map" and len(shape) == 3:
        return f"attention pooling of {counted(shape[1], 'token')}"
    if pool not in _POOLS or len(shape) not in (3, 4):
        return f"the network's own pooling ({pool})" if pool else "the network's own pooling"
    if len(shape) == 4:
        last = getattr(network, "output_fmt", None) == "NHWC"
        height, width = shape[1:3] if last else shape[2:4]
        hidden = dim not in {shape[3 if last else 1], 2 * shape[3 if last else 1]}
        return f"{_POOLS[pool]} of {height} x {width} positions{', through a hidden layer' if hidden else ''}"
    if getattr(network, "pool_include_prefix", False):
        return f"{_POOLS[pool]} of all {counted(shape[1], 'token')}"
    patches = counted(shape[1] - tokens.prefix, "patch token")
    return f"{_POOLS[pool]} of {patches}{tokens.others(class_token=True)}"


def _pool_name(network: torch.nn.Module) -> str:
    """timm's word for the pooling: token, avg, max, avgmax, map, ...; "" if the network does not say."""
    for part in (network, getattr(network, "head", None)):
        pool = getattr(part, "global_pool", None)
        name = pool if isinstance(pool, str) else getattr(pool, "pool_type", None)
        if isinstance(name, str) and name:
            return name
    return ""
