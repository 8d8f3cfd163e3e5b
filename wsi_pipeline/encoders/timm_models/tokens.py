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


def choose_pooling(network: torch.nn.Module, images: torch.Tensor, published: str = "") -> tuple[Pooling, int]:
    """How to pool this network: as its authors publish it, else as it pools itself, else class token, else mean.

    images      of the size that will be fed; on device `meta` this costs no memory
    published   CLASS_AND_MEAN, or "" for the network's own pooling

    Also returns the length of the features. Raises EncoderError for an output that is neither a vector, tokens, nor a
    grid of positions.
    """
    output, inner = _run(network, images)
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else ()
    if len(shape) not in (2, 3, 4):
        raise EncoderError("it gives no feature vector, no tokens and no grid of positions")
    tokens = read_tokens(network)
    if published == CLASS_AND_MEAN:
        return _class_and_mean(shape if len(shape) == 3 else _shape(inner), tokens)
    if len(shape) == 2:
        return Pooling("own", _own_words(network, _shape(inner), tokens, shape[1])), shape[1]
    if len(shape) == 4:
        last = getattr(network, "output_fmt", None) == "NHWC"
        height, width = shape[1:3] if last else shape[2:4]
        described = f"mean of {height} x {width} positions"
        return Pooling("grid", described, tokens, channels_last=last, changed=last), shape[3 if last else 1]
    if tokens.class_token:
        return Pooling("class", "class token", tokens, changed=not getattr(network, "num_prefix_tokens", 0)), shape[2]
    description = f"mean of {counted(shape[1] - tokens.prefix, 'patch token')}{tokens.others(class_token=False)}"
    return Pooling("mean", description, tokens, changed=tokens.prefix > 0), shape[2]


def _run(network: Any, images: torch.Tensor) -> tuple[Any, Any]:
    """The output of a network, and of its `forward_features` on the way: running that again takes as long."""
    features: Callable[..., Any] | None = getattr(network, "forward_features", None)
    if features is None:
        return network(images), None
    found: list[Any] = []

    def noted(*args: Any, **options: Any) -> Any:
        found.append(features(*args, **options))
        return found[-1]

    network.forward_features = noted
    try:
        output = network(images)
    finally:
        del network.forward_features
    return output, found[-1] if found else features(images)


def _shape(output: Any) -> tuple[int, ...]:
    return tuple(output.shape) if isinstance(output, torch.Tensor) else ()


def _class_and_mean(shape: tuple[int, ...], tokens: Tokens) -> tuple[Pooling, int]:
    if not tokens.class_token:
        raise EncoderError("it has no class token, but its published feature is that with the mean of the patch tokens")
    if len(shape) != 3:
        raise EncoderError(_NO_TOKENS)
    patches = counted(shape[1] - tokens.prefix, "patch token")
    description = f"class token + mean of {patches}{tokens.others(class_token=False)}"
    return Pooling(CLASS_AND_MEAN, description, tokens, changed=True), 2 * shape[2]


_NO_TOKENS = "it gives no tokens"


def _tokens_of(network: Any, images: torch.Tensor) -> torch.Tensor:
    tokens = network.forward_features(images)
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 3:
        raise EncoderError(_NO_TOKENS)
    return tokens


def _own_words(network: torch.nn.Module, shape: tuple[int, ...], tokens: Tokens, dim: int) -> str:
    """The network's own pooling, in words; `shape`: of what it pools."""
    pool = _pool_name(network)
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
