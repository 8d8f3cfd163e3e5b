"""The backbone: a plain vision transformer of timm, opened from a file or the hub, its fingerprint, what of it trains.

Plain means timm's own `VisionTransformer` (Dosovitskiy et al. 2021, arXiv 2010.11929; also DeiT, DINO, DINOv2 with or
without registers, MAE, CLIP image towers) with a class token, and with its last norm before pooling. Its low-rank
updates (LoRA; Hu et al. 2021, arXiv 2106.09685) come from the library peft.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from pathotune.checks import check_text, check_whole
from pathotune.config import PathoTuneConfig
from pathotune.errors import BackboneError, ConfigError

Backbone = Any
"""A VisionTransformer that passed `check_plain`. timm has no type hints."""
ARGUMENTS: Mapping[str, int] = {
    "img_size": 4096,
    "patch_size": 64,
    "embed_dim": 4096,
    "depth": 64,
    "num_heads": 64,
    "mlp_ratio": 16,
    "reg_tokens": 64,
    "init_values": 16,
    "no_embed_class": 1,
    "pre_norm": 1,
    "qkv_bias": 1,
    "qk_norm": 1,
}
"""Arguments that shape a plain ViT, with their upper limits. No others are passed to timm: some would open files."""
BUILT_IN: Mapping[str, tuple[str, Mapping[str, int]]] = {"vit-mini": ("deit_tiny_patch16_224", {"depth": 6})}
"""Backbones with weights in pathotune/builtin/NAME.safetensors: their timm model and arguments."""
LORA_TARGET = "qkv"
"""The layer that LoRA updates in each block: the joint projection to queries, keys and values."""
_BUILT_IN_FOLDER = Path(__file__).parent / "builtin"
_MAX_SIDE = 4096
_HEAD = "head."
_CONVERT = "Name a .safetensors file saved from this timm model, or choose the model it was saved from."
_HUB_FAULTS = (OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class BackboneCard:
    """How to build a backbone and how to prepare images for it.

    name           model name in timm, or hf-hub:ORG/NAME
    input_px       side in pixels of the square input image
    mean, std      per channel, of images scaled to [0, 1]
    interpolation  how images were resized when the backbone was trained
    arguments      further arguments of timm.create_model, from ARGUMENTS

    A card may come from a stranger's adapter file, so values are checked. Raises ConfigError if one is out of range.
    """

    name: str
    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text("name", self.name)
        check_text("interpolation", self.interpolation)
        check_whole("input_px", self.input_px, 1, _MAX_SIDE)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ConfigError(f"{name} must be three numbers, got {values}")
        if min(self.std) <= 0:
            raise ConfigError(f"std must be positive, got {self.std}")
        check_arguments(self.arguments)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "arguments": dict(self.arguments)}


def open_backbone(
    name: str,
    weights: str | PathLike[str] | None = None,
    *,
    input_px: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> tuple[Backbone, BackboneCard]:
    """Open a ViT in float32 on the CPU, in eval mode. Returns it with its card.

    `weights` is a safetensors file of this timm model, or a folder with model.safetensors. None looks in the Hugging
    Face cache, then on the hub; names in BUILT_IN (`vit-mini`) come with the package. `input_px` may differ from the
    size the weights were trained at: position embeddings are resampled in the forward pass, so the fingerprint does not
    change. Raises BackboneError if the model cannot be opened or is not a plain ViT, ConfigError for bad `arguments`.
    """
    check_arguments(arguments or {})
    weights = None if weights is None else Path(weights)
    if name in BUILT_IN:
        return _open_built_in(name, weights, input_px, arguments or {})
    hosted = name.startswith("hf-hub:")
    if not hosted and not timm.is_model(name.partition(".")[0]):
        near = ", ".join(timm.list_models("vit_*patch16_224")[:4])
        raise BackboneError(f"unknown timm model {name!r}", todo=f"Plain ViTs are, for instance, {near}.")
    options = {**(arguments or {}), "num_classes": 0, "dynamic_img_size": True}
    network = check_plain(_create(name, weights is None, options))
    if weights is not None:
        _load_into(network, weights)
    return network.eval(), _card(name, network, input_px, arguments or {})


def _open_built_in(
    name: str, weights: Path | None, input_px: int | None, arguments: Mapping[str, Any]
) -> tuple[Backbone, BackboneCard]:
    """A backbone that comes with the package. The card keeps its built-in name, so an adapter's card can open it."""
    base, shape = BUILT_IN[name]
    path = weights or _BUILT_IN_FOLDER / f"{name}.safetensors"
    network, card = open_backbone(base, path, input_px=input_px, arguments={**shape, **arguments})
    return network, replace(card, name=name, arguments=dict(arguments))


def check_arguments(arguments: Any) -> None:
    """Raise ConfigError unless all arguments are in ARGUMENTS and each is a number or boolean within its limit."""
    if not isinstance(arguments, Mapping) or not set(arguments) <= set(ARGUMENTS):
        raise ConfigError(f"arguments must be among {', '.join(ARGUMENTS)}, got {str(arguments)[:80]}")
    for name, value in arguments.items():
        if not isinstance(value, int | float) or not 0 <= value <= ARGUMENTS[name]:
            raise ConfigError(f"{name} must be a number from 0 to {ARGUMENTS[name]}, got {value!r}")


def check_plain(network: nn.Module) -> Backbone:
    """Return the network. Raises BackboneError unless it is a plain ViT with a class token."""
    todo = "Choose a plain ViT of timm with a class token, such as vit_small_patch16_224 or deit_tiny_patch16_224."
    vit: Backbone = network
    if type(network) is not VisionTransformer:
        raise BackboneError(f"the backbone must be timm's VisionTransformer, got {type(vit).__name__}", todo=todo)
    if not vit.has_class_token:
        raise BackboneError("the backbone must have a class token, this one has none", todo=todo)
    if type(vit.patch_embed) is not PatchEmbed:
        raise BackboneError(f"the backbone must embed plain patches, got {type(vit.patch_embed).__name__}", todo=todo)
    if vit.attn_pool is not None or not isinstance(vit.fc_norm, nn.Identity):
        raise BackboneError(
            f"the backbone must normalise its tokens before pooling, this one pools by {vit.global_pool!r}",
            todo="Create it with global_pool='token'.",
        )
    return vit


def count_parameters(network: nn.Module) -> int:
    """Number of parameters of a backbone without its classification head."""
    return sum(value.numel() for name, value in network.named_parameters() if not name.startswith(_HEAD))


def fingerprint(network: nn.Module) -> str:
    """SHA-256 (hex) of a backbone: the sorted names, types, shapes and bytes of its tensors, without the head.

    The number of attention heads, the norm's epsilon and whether [CLS] has a position embedding are hashed too: the
    tensors do not show them.
    """
    vit = check_plain(network)
    facts = {
        "heads": int(vit.blocks[0].attn.num_heads),
        "eps": float(getattr(vit.norm, "eps", 0.0)),
        "class_without_position": bool(vit.no_embed_class),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(vit.state_dict().items()):
        if name.startswith(_HEAD):
            continue
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def _create(name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    try:
        network = timm.create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        raise BackboneError(f"{name} is not a plain vision transformer: {error}") from None
    except _HUB_FAULTS as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackboneError(
            f"{name} cannot be opened from the Hugging Face cache or hub: {reason}",
            todo="Offline, copy its model.safetensors here and pass the file as weights.",
        ) from None
    if not isinstance(network, nn.Module):
        raise BackboneError(f"timm model {name} is not a network")
    return network


def _load_into(network: Backbone, weights: Path) -> None:
    """Load all tensors or none. The classifier is left out; missing or unexpected tensors are an error."""
    path = weights / "model.safetensors" if weights.is_dir() else weights
    if not path.is_file():
        raise BackboneError(f"weights file {path} is missing", todo=_CONVERT)
    try:
        raw = {name: value.float() for name, value in load_file(path).items()}
        given: dict[str, Tensor] = checkpoint_filter_fn(raw, network)
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read as weights: {error}", todo=_CONVERT) from None
    given = {name: value for name, value in given.items() if not name.startswith(_HEAD)}
    wanted = network.state_dict()
    odd = sorted({*wanted} ^ {*given}) or [name for name in wanted if wanted[name].shape != given[name].shape]
    if odd:
        raise BackboneError(
            f"{path} does not fit this backbone: {len(odd)} tensors missing, left over or of another shape "
            f"({', '.join(odd[:4])})",
            todo=_CONVERT,
        )
    network.load_state_dict(given)


def _card(name: str, network: Backbone, input_px: int | None, arguments: Mapping[str, Any]) -> BackboneCard:
    facts = dict(network.pretrained_cfg or {})
    side = input_px or int(network.patch_embed.img_size[0])
    patch = int(network.patch_embed.patch_size[0])
    if side < patch or side % patch:
        raise BackboneError(f"input_px must be a multiple of the patch side {patch}, got {side}")
    mean, std = (_triple(facts.get(key, fallback)) for key, fallback in (("mean", (0.5,) * 3), ("std", (0.5,) * 3)))
    return BackboneCard(name, side, mean, std, str(facts.get("interpolation") or "bicubic"), dict(arguments))


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def adapt(vit: Backbone, config: PathoTuneConfig) -> None:
    """Freeze a backbone in place, then unfreeze what `config.backbone` selects. The backbone is left in eval mode.

    LoRA layers are created on the backbone's device, or on `meta` if that is torch's default device.
    """
    vit.requires_grad_(False).eval()
    if config.backbone == "lora":
        _inject(vit, config)
    for parameter in adapted(vit, config).values():
        parameter.requires_grad_(True)
    vit.eval()


def adapted(vit: Backbone, config: PathoTuneConfig) -> dict[str, nn.Parameter]:
    """Trainable parameters of the backbone by name. Its classification head is never trained."""
    if config.backbone == "frozen":
        return {}
    chosen = "lora_" if config.backbone == "lora" else ""
    return {name: value for name, value in vit.named_parameters() if chosen in name and not name.startswith("head.")}


def _inject(vit: Backbone, config: PathoTuneConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    options = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=[LORA_TARGET])
    # peft creates new layers on the device of the layer they wrap; a model that is about to be loaded needs `meta`.
    later = torch.get_default_device().type == "meta"
    inject_adapter_in_model(options, vit, low_cpu_mem_usage=later)
