"""Networks of transformers as encoders: their weights, loaded strictly, and one row of features per image.

The first of these that exists: the image features of an image-text model, the model's own summary, the trained
pooler, the class token, the mean over tokens or positions.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from wsi_pipeline.encoders.hf_models.hf_processor import quiet
from wsi_pipeline.encoders.zoo.facts import CLASS_AND_MEAN, CLASS_TOKEN
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.wording import first_line, listed

log = logging.getLogger(__name__)
auto: Any = transformers
"""transformers types only a part of its functions."""

BUILD_FAULTS = (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, ImportError, AssertionError)
"""What transformers raises for configurations it cannot build, or images a network cannot take."""
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
_UNUSED = ("mask_token", "position_ids", "relative_position_index", "inv_freq", "num_batches_tracked")
"""Tensors not used for images in evaluation, or recomputed."""
_HEADS = ("classifier", "head", "heads", "fc", "lm_head", "cls", "pooler", "decoder", "decode_head", "auxiliary_head",
          "logit_scale", "logit_bias", "text_model", "text_projection", "visual_projection",
          "projector")  # fmt: skip
"""Parts of other models of the same family, ignored if the encoder's network has no part of that name."""
_RANDOM = {"rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "bernoulli",
           "multinomial", "normal", "normal_functional", "uniform", "exponential"}  # fmt: skip
_CLASS_TOKEN_FIRST = {"flava"}
"""Image-text models that project every token; the first, the class token, is what they compare with texts."""
_LAST_IS_WIDTH = {"sam2", "sam2_vision_model", "sam2_hiera_det_model", "sam2_video", "edgetam", "edgetam_video"}
"""Models whose maps are (B, height, width, D)."""


@dataclass(frozen=True)
class Row:
    """One row of features per image, and what it is made of.

    new  a rule that earlier versions lacked or did not follow, for the fingerprint; "" if nothing changed
    """

    features: torch.Tensor
    made_of: str
    new: str = ""


def build(config: Any) -> torch.nn.Module:
    """The network of a config in eval mode, without tensors, with masking of patches disabled."""
    with torch.device("meta"), quiet():
        network: torch.nn.Module = auto.AutoModel.from_config(config).eval()
    return _unmasked(network)


def load(
    config: Any, tensors: Mapping[str, torch.Tensor], source: Path, positions: str = ""
) -> tuple[torch.nn.Module, bool]:
    """The network in fp32 with tensors that were read from `source`, and whether its pooler came with them.

    Raises EncoderError for tensors that are missing, left over or of another shape. Only a missing pooler is tolerated
    (models fine-tuned for classification have none): its output would be random, so it is not used. Heads, decoders
    and text towers that the network has no part for are left out with a log line.
    """
    config = _saved_for(config, tensors.get(positions))
    try:
        with quiet():
            kind: Any = type(build(config))
            network, facts = kind.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                output_loading_info=True,
                torch_dtype=torch.float32,
                ignore_mismatched_sizes=True,  # so that they are named below
            )
    except (RuntimeError, ValueError) as error:
        raise EncoderError(f"{source} does not fit {config.model_type}: {str(error).splitlines()[0]}") from None
    missing = sorted(str(key) for key in facts["missing_keys"] if not _is_part(key, _UNUSED))
    pooler = [key for key in missing if _is_part(key, ("pooler",))]
    shapes = sorted(_mismatch(key) for key in facts["mismatched_keys"])
    faults = [key for key in missing if key not in pooler] + shapes
    surplus, left_out = _surplus(network, facts["unexpected_keys"], tensors)
    unfit = [
        f"{len(names)} tensors {kind} ({listed(names)})"
        for kind, names in (("missing or of another shape", faults), ("more than the config has", surplus))
        if names
    ]
    if unfit:
        raise EncoderError(
            f"{source} does not fit {config.model_type}: {'; '.join(unfit)}",
            todo="Use the model.safetensors that belongs to this config.json.",
        )
    if left_out:
        log.info("%s: left out tensors that are not part of the encoder: %s", source.name, listed(left_out))
    if pooler:
        log.info("%s has no pooler: the class token is the feature", source.name)
    return _unmasked(network.float().eval()), not pooler


def _mismatch(found: Any) -> str:
    """A tensor of another shape, as transformers reports it: its name, or name, shape found and shape wanted."""
    if isinstance(found, str):
        return found
    name, given, wanted = found
    return f"{name}: {' x '.join(map(str, given))} instead of {' x '.join(map(str, wanted))}"


def _saved_for(config: Any, table: torch.Tensor | None) -> Any:
    """The config with the image size that position embeddings (1, 1 + grid * grid, D) were saved for."""
    if table is None or table.ndim != 3:
        return config
    side = math.isqrt(table.shape[1] - 1) * config.patch_size
    if side == config.image_size:
        return config
    resized = copy.deepcopy(config)
    resized.image_size = side
    return resized


def pool(network: Any, images: torch.Tensor, *, use_pooler: bool = True, feature: str = "") -> torch.Tensor:
    """Features (B, D) of normalised images (B, 3, S, S)."""
    return row_of(network, images, use_pooler=use_pooler, feature=feature).features


def row_of(network: Any, images: torch.Tensor, *, use_pooler: bool = True, feature: str = "") -> Row:
    """One row of features for each of the images (B, 3, S, S), and what it is.

    feature  CLASS_TOKEN or CLASS_AND_MEAN of the last layer, as published; anything else: the network's own output

    Raises EncoderError for models whose output is not about the image as a whole.
    """
    if is_image_text(network):
        return _image_features(network, network.get_image_features(pixel_values=images))
    output = network(images, **_fixed_order(network, images))
    if feature in (CLASS_TOKEN, CLASS_AND_MEAN):
        return _published(network, output.last_hidden_state, feature)
    if isinstance(output, torch.Tensor):
        return _averaged(network, output)
    if _given(output, "encoder_last_hidden_state") is not None:
        raise _no_features(network, "its output is a set of detected objects")
    summary, pooled = _given(output, "summary"), _given(output, "pooler_output")
    if summary is not None:
        return Row(summary, "the model's own summary tokens", new="summary")
    if pooled is not None and use_pooler:
        return _flat(pooled)
    separate, hidden = _given(output, "cls_token_value"), _given(output, "last_hidden_state")
    if separate is not None:
        return Row(separate.flatten(1), "class token", new="separate class token")
    maps = _given(output, "feature_maps")
    if hidden is None and maps:
        return Row(maps[-1].mean(dim=(2, 3)), "mean over the positions of the last map", new="last feature map")
    if hidden is None:
        raise _no_features(network, f"{type(output).__name__} holds {', '.join(output)}")
    if hidden.ndim == 3 and _has_class_token(network):
        return Row(hidden[:, 0], "class token")
    return _averaged(network, hidden)


def _published(network: Any, hidden: torch.Tensor, feature: str) -> Row:
    """The class token, alone or before the mean of the patch tokens; register tokens are left out."""
    if feature == CLASS_TOKEN:
        return Row(hidden[:, 0], "class token", new=feature)
    before = 1 + int(getattr(network.config, "num_register_tokens", 0))
    features = torch.cat([hidden[:, 0], hidden[:, before:].mean(dim=1)], dim=1)
    return Row(features, f"class token + mean of {hidden.shape[1] - before} patch tokens", new=feature)


def measure(config: Any, sides: Iterable[int], feature: str = "") -> tuple[int, Row]:
    """(side, row): the first side of images that the network takes, by a dry run of two images without data.

    Raises EncoderError if it takes none, does not give a single row per image, or draws random numbers.
    """
    try:
        network = build(config)
    except BUILD_FAULTS as error:
        raise EncoderError(f"transformers has no model for {config.model_type!r} here: {first_line(error)}") from None
    if getattr(config, "num_queries", None) is not None:
        raise _no_features(network, "it is a detector: its output is a set of detected objects")
    reason = ""
    for side in sides:
        try:
            with _Watch() as watch, torch.inference_mode():
                row = row_of(network, torch.empty(2, 3, side, side, device="meta"), feature=feature)
        except BUILD_FAULTS as error:
            reason = first_line(error)
            continue
        if row.features.ndim != 2 or row.features.shape[0] != 2:
            raise _no_features(network, f"two images give features of shape {tuple(row.features.shape)}")
        if watch.drawn:
            raise _no_features(network, f"it draws random numbers ({', '.join(sorted(watch.drawn))}) for every image")
        return side, row
    raise _no_features(network, reason)


def is_image_text(network: Any) -> bool:
    """True for models that have image features beside text features."""
    return callable(getattr(network, "get_image_features", None))


def _image_features(network: Any, output: Any) -> Row:
    """The vector an image-text model compares with texts; a language model's image tokens are not that."""
    made_of = "image features of an image-text model"
    features = output if isinstance(output, torch.Tensor) else _given(output, "pooler_output")
    hidden = None if isinstance(output, torch.Tensor) else _given(output, "last_hidden_state")
    if features is None and isinstance(hidden, torch.Tensor):
        return _averaged(network, hidden)
    if isinstance(features, torch.Tensor) and features.ndim == 2:
        return Row(features, made_of)
    if isinstance(features, torch.Tensor) and features.ndim == 3 and network.config.model_type in _CLASS_TOKEN_FIRST:
        return Row(features[:, 0], f"{made_of}, class token", new="class token of the image features")
    raise _no_features(network, "it gives many vectors per image, meant for a language model")


def _flat(pooled: torch.Tensor) -> Row:
    """The pooler's row. A pooler that leaves several positions (TextNet) is averaged as its own classifier does."""
    if pooled.ndim == 4 and pooled.shape[2:] != (1, 1):
        return Row(pooled.mean(dim=(2, 3)), "pooled output, mean over positions", new="mean of the pooled output")
    return Row(pooled.flatten(1), "pooled output; the class token where the weights have no pooler")


def _averaged(network: Any, hidden: torch.Tensor) -> Row:
    if hidden.ndim == 4 and network.config.model_type in _LAST_IS_WIDTH:
        return Row(hidden.mean(dim=(1, 2)), "mean over positions", new="mean over (height, width, D)")
    if hidden.ndim == 4:
        return Row(hidden.mean(dim=(2, 3)), "mean over positions")
    if hidden.ndim == 3:
        return Row(hidden.mean(dim=1), "mean over tokens")
    return Row(hidden, "output")


def _fixed_order(network: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Arguments that keep a masked autoencoder from shuffling its patches at random."""
    if network.config.model_type != "vit_mae":
        return {}
    count = (images.shape[-1] // network.config.patch_size) ** 2
    return {"noise": torch.arange(count, device=images.device, dtype=torch.float32).expand(len(images), -1)}


def _unmasked(network: Any) -> torch.nn.Module:
    """The network without masking: masked autoencoders drop most patches even in evaluation."""
    if network.config.model_type == "vit_mae":
        network.config.mask_ratio = 0.0
    return network  # type: ignore[no-any-return]


def _has_class_token(network: torch.nn.Module) -> bool:
    return any(key.rpartition(".")[2] in _CLASS_TOKENS for key, _ in network.named_parameters())


def _given(output: Any, key: str) -> Any:
    return getattr(output, key, None)


def _surplus(network: Any, unexpected: Iterable[str], given: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tensors that the network does not use, as (faults, those that may be left out).

    Left out: parts beside the network that the file names as its base (a classifier beside `vit.`), heads known by
    name, and tensors that no image passes through. A fault: anything inside a part that the network has, such as a
    layer more than the config says.
    """
    prefix = str(getattr(network, "base_model_prefix", "") or "")
    own = {key.partition(".")[0] for key in network.state_dict()}
    wrapped = bool(prefix) and prefix not in own and any(key.startswith(f"{prefix}.") for key in given)
    faults: list[str] = []
    left_out: list[str] = []
    for key in sorted(unexpected):
        inside = wrapped and key.startswith(f"{prefix}.")
        root = key.removeprefix(f"{prefix}.").partition(".")[0] if inside else key.partition(".")[0]
        beside = root not in own and (root in _HEADS or (wrapped and not inside))
        (left_out if beside or _is_part(key, _UNUSED) else faults).append(key)
    return faults, left_out


def _is_part(key: str, names: tuple[str, ...]) -> bool:
    return any(part in names for part in key.split("."))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the names of operations that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func.overloadpacket.__name__)
        if name.rstrip("_") in _RANDOM:
            self.drawn.add(name)
        operation: Callable[..., Any] = func
        return operation(*args, **(kwargs or {}))


def _no_features(network: Any, reason: str) -> EncoderError:
    return EncoderError(
        f"{network.config.model_type} ({type(network).__name__}) does not turn images into features: {reason}",
        todo="Choose a vision model; text models, detectors and text generators cannot be used as encoders.",
    )
